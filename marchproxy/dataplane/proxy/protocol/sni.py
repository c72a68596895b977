"""TLS that passes through: its name is read, its bytes go on unread (RFC 8446, RFC 6066)."""

from collections.abc import Mapping
from types import MappingProxyType

from marchproxy.dataplane.proxy.protocol.admission import Admission
from marchproxy.dataplane.proxy.protocol.alerts import Alert, fatal
from marchproxy.dataplane.proxy.protocol.clienthello import ClientHelloReader, Hello, NotTls
from marchproxy.dataplane.proxy.protocol.exchange import Opened, Request, Speech, Unfit
from marchproxy.model.reason import Reason

_ALERTS: Mapping[Reason, Alert] = MappingProxyType(
    {
        Reason.MALFORMED: Alert.DECODE_ERROR,
        Reason.SNI_MISMATCH: Alert.UNRECOGNIZED_NAME,
        Reason.SNI_MISSING: Alert.UNRECOGNIZED_NAME,
        Reason.NAME_UNKNOWN: Alert.UNRECOGNIZED_NAME,
    }
    | dict.fromkeys(
        (
            Reason.TOO_SLOW,
            Reason.NO_BACKEND,
            Reason.NO_ROUTE,
            Reason.UPSTREAM_REFUSED,
            Reason.UPSTREAM_TIMEOUT,
            Reason.RATE_LIMITED,
            Reason.FLOW_TABLE_FULL,
            Reason.NO_NAT_PORT,
        ),
        Alert.HANDSHAKE_FAILURE,
    )
)
"""Every other reason is the policy's: access denied."""


class SniLayer(Admission):
    """One client of a listener, or of a tunnel, whose mapping looks at the TLS name.

    A client that speaks something else is asked about too, as not `secure`: the mapping says whether that is
    let through.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reader = ClientHelloReader()
        self._seen = 0
        self._tls = True
        self.hello: Hello | None = None
        """What the client said, once it is asked about; None: it speaks no TLS."""

    def _read(self) -> None:
        found = self._reader.feed(bytes(self._held[self._seen :]))
        self._seen = len(self._held)
        match found:
            case NotTls(detail, broken=True):
                raise Unfit(Reason.MALFORMED, detail)
            case NotTls():
                self._tls = False
                self._ask(Request(Speech.TLS, None, None))
            case Hello(name, ech=ech):
                self.hello = found
                self._ask(Request(Speech.TLS, name, None, secure=True, ech=ech))

    def _admitted(self, opened: Opened) -> None:
        self._relay(bytes(self._held))

    def _told(self, unfit: Unfit) -> bytes:
        if not self._tls or not self._heard:
            return b""
        return fatal(_ALERTS.get(unfit.reason, Alert.ACCESS_DENIED))
