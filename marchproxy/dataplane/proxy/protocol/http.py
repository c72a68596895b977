"""HTTP/1.1 as an explicit proxy speaks it: CONNECT, and requests in absolute form (RFC 9110, RFC 9112).

Of a connection one request is forwarded. Several would each have to be decided about, and the boundaries
between them are what request smuggling lives on.
"""

from marchproxy.dataplane.proxy.protocol.admission import Admission
from marchproxy.dataplane.proxy.protocol.authority import format_authority
from marchproxy.dataplane.proxy.protocol.credential import read_authorization
from marchproxy.dataplane.proxy.protocol.exchange import Bound, Opened, Request, Speech, Unfit
from marchproxy.dataplane.proxy.protocol.http_answer import render_refusal
from marchproxy.dataplane.proxy.protocol.http_body import check_bodiless, read_body
from marchproxy.dataplane.proxy.protocol.http_forward import check_connection, rewrite_head
from marchproxy.dataplane.proxy.protocol.http_head import Head, head_length, parse_head
from marchproxy.dataplane.proxy.protocol.http_target import Target, check_hops, read_target

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class HttpLayer(Admission):
    """One client of the explicit proxy."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0
        self._head: Head | None = None
        self._target: Target | None = None
        self._body: Bound | None = None

    def _read(self) -> None:
        length = head_length(self._held, self._seen)
        self._seen = len(self._held)
        if length is not None:
            head = bytes(self._held[:length])
            del self._held[:length]
            self._decide(parse_head(head))

    def _decide(self, head: Head) -> None:
        self._head = head
        target = self._target = read_target(head)
        if target.speech is Speech.CONNECT:
            check_bodiless(head)
        else:
            check_hops(head)
            check_connection(head)
            self._body = read_body(head)
        authorization = head.get("proxy-authorization")
        credential = None if authorization is None else read_authorization(authorization)
        self._ask(Request(target.speech, target.host, target.port, credential))

    def _admitted(self, opened: Opened) -> None:
        held = bytes(self._held)
        if self._body is None or self._head is None or self._target is None:
            self._send(_ESTABLISHED)
            self._relay(held)
        else:
            self._relay(rewrite_head(self._head, self._target) + self._body.take(held), self._body)

    def _told(self, unfit: Unfit) -> bytes:
        target = self._target
        asked = "" if target is None else format_authority(target.host, target.port)
        with_body = self._head is None or self._head.method != "HEAD"
        return render_refusal(unfit, asked, with_body=with_body)
