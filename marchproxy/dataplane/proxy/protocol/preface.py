r"""The line by which a client of a mapping's listener says who it is, before it speaks its own protocol.

    client                  server
    MARCHPROXY/1 TOKEN\n    OK\n or ERR REASON\n           ours; the client speaks first
    SERVICE:TOKEN\n         AUTH_OK\n or AUTH_FAILED\n     the fleet's; after the server's MARCHPROXY_AUTH\n

One listener serves both. Whoever says nothing for a moment may be waiting for the challenge and gets it.
A slow client of ours gets it too, and has to pass over it. CR before LF is taken in both.
"""

import re

from marchproxy.dataplane.proxy.protocol.admission import DEADLINE, Admission
from marchproxy.dataplane.proxy.protocol.credential import read_pair, read_token
from marchproxy.dataplane.proxy.protocol.exchange import Opened, Request, Speech, Unfit
from marchproxy.model.presented import MAX_SECRET, Presented
from marchproxy.model.reason import Reason

CHALLENGE = b"MARCHPROXY_AUTH\n"
GREETING = b"MARCHPROXY/1 "
OK = b"OK\n"
ERROR = b"ERR "
"""What the name of a reason and a newline follow."""
PATIENCE = 0.3
"""Seconds of silence after which a client is challenged."""
MAX_LINE = MAX_SECRET + 116
"""Bytes with the newline: the largest secret, and what else may be on its line."""

_ANY_VERSION = b"MARCHPROXY/"
_FLEET_OK, _FLEET_FAILED = b"AUTH_OK\n", b"AUTH_FAILED\n"
_END = re.compile(rb"\r?\n|\r(?=[^\n])|[^!-~\r\n]")
"""The end of a line, or what makes it none of ours. A CR at the end of what is there may still become one."""


class PrefaceLayer(Admission):
    """One client of a listener whose mapping wants a credential."""

    def __init__(self) -> None:
        super().__init__()
        self._deadline = 0.0
        self._patient = True
        self._seen = 0
        self._speech = Speech.PREFACE

    def _begin(self, now: float) -> None:
        self._deadline = now + DEADLINE
        self._wake_at(now + PATIENCE)

    def _elapsed(self) -> None:
        """First comes the end of patience, then the deadline."""
        if not self._patient:
            super()._elapsed()
        self._patient = False
        if not self._heard:
            self._send(CHALLENGE)
        self._wake_at(self._deadline)

    def _read(self) -> None:
        greeted = len(GREETING) if self._held.startswith(GREETING) else 0
        end = _END.search(self._held, max(greeted, self._seen - 1), MAX_LINE)
        self._seen = len(self._held)
        if end is not None:
            if not end[0].endswith(b"\n"):
                raise self._foreign()
            line = bytes(self._held[: end.start()])
            credential = self._credential(line)
            del self._held[: end.end()]
            self._ask(Request(self._speech, None, None, credential))
        elif len(self._held) >= MAX_LINE:
            raise Unfit(Reason.MALFORMED, f"the first line has more than {MAX_LINE} bytes")

    def _credential(self, line: bytes) -> Presented:
        if line.startswith(GREETING):
            return read_token(line.removeprefix(GREETING).decode("ascii"))
        service, colon, token = line.decode("ascii").partition(":")
        if not colon or line.startswith(_ANY_VERSION):
            raise self._foreign()
        self._speech = Speech.FLEET
        return read_pair(service, token)

    def _foreign(self) -> Unfit:
        """What a first line is that has neither form."""
        if self._held.startswith(GREETING):
            return Unfit(Reason.AUTH_INVALID, "a token is printable ASCII without spaces")
        if self._held.startswith(_ANY_VERSION):
            return Unfit(Reason.UNSUPPORTED, "the preface of this version is MARCHPROXY/1 TOKEN")
        return Unfit(Reason.AUTH_MISSING, "the client spoke its own protocol, without a credential before it")

    def _admitted(self, opened: Opened) -> None:
        self._send(_FLEET_OK if self._speech is Speech.FLEET else OK)
        self._relay(bytes(self._held))

    def _told(self, unfit: Unfit) -> bytes:
        if self._speech is Speech.FLEET:
            return _FLEET_FAILED
        return ERROR + unfit.reason.name.encode() + b"\n"
