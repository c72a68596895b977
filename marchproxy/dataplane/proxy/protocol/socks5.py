"""SOCKS5 (RFC 1928) with user and password (RFC 1929): CONNECT and UDP ASSOCIATE."""

from collections.abc import Mapping
from enum import Enum, auto
from ipaddress import IPv4Address
from types import MappingProxyType

from marchproxy.dataplane.proxy.protocol.admission import Admission
from marchproxy.dataplane.proxy.protocol.credential import read_pair
from marchproxy.dataplane.proxy.protocol.exchange import Opened, Request, Speech, Unfit
from marchproxy.dataplane.proxy.protocol.socks5_address import SocksUnfit, format_address, read_address
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason

VERSION = 5
_PASSWORD_VERSION = 1
_NO_AUTH, _PASSWORD, _NO_METHOD = 0x00, 0x02, 0xFF
_CONNECT, _ASSOCIATE = 1, 3
_SUCCEEDED, _FAILED, _NOT_ALLOWED, _COMMAND_NOT_SUPPORTED = 0x00, 0x01, 0x02, 0x07
_NETWORK_UNREACHABLE, _HOST_UNREACHABLE, _CONNECTION_REFUSED = 0x03, 0x04, 0x05
_NOWHERE = format_address(IPv4Address(0), 0)

_CODES: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.NO_ROUTE: _NETWORK_UNREACHABLE,
        Reason.NAME_UNKNOWN: _HOST_UNREACHABLE,
        Reason.UPSTREAM_TIMEOUT: _HOST_UNREACHABLE,
        Reason.UPSTREAM_REFUSED: _CONNECTION_REFUSED,
    }
    | dict.fromkeys(
        (
            Reason.NO_BACKEND,
            Reason.RATE_LIMITED,
            Reason.FLOW_TABLE_FULL,
            Reason.NO_NAT_PORT,
            Reason.MALFORMED,
            Reason.TOO_SLOW,
        ),
        _FAILED,
    )
)
"""Every other reason is the policy's, credentials included: not allowed by ruleset."""


class _Step(Enum):
    GREETING = auto()
    PASSWORD = auto()
    REQUEST = auto()


class Socks5Layer(Admission):
    """One client. What it sends ahead of our answers is taken as if it had waited."""

    def __init__(self) -> None:
        super().__init__()
        self._step = _Step.GREETING
        self._credential: Presented | None = None
        self._speech = Speech.SOCKS5

    def _read(self) -> None:
        if self._step is _Step.GREETING:
            self._greeting()
        if self._step is _Step.PASSWORD:
            self._password()
        if self._step is _Step.REQUEST:
            self._request()

    def _greeting(self) -> None:
        self._check_version(VERSION)
        if len(self._held) < 2 or len(self._held) < 2 + self._held[1]:
            return
        end = 2 + self._held[1]
        methods = self._held[2:end]
        if _PASSWORD not in methods and _NO_AUTH not in methods:
            raise Unfit(Reason.UNSUPPORTED, "SOCKS5 with a method other than user and password, or none")
        # Whoever can say who it is shall do so. Without it, policy decides about the request.
        password = _PASSWORD in methods
        self._send(bytes((VERSION, _PASSWORD if password else _NO_AUTH)))
        self._next(_Step.PASSWORD if password else _Step.REQUEST, end)

    def _password(self) -> None:
        """Accept any well-formed credential: it is checked with the request, which is not known yet.

        Whether it is right depends on the destination's mapping, and its failure is counted and told once. A
        client learns it by the reply to its request.
        """
        held = self._held
        self._check_version(_PASSWORD_VERSION)
        if len(held) < 2 or len(held) < 3 + held[1]:
            return
        user_end = 2 + held[1]
        end = user_end + 1 + held[user_end]
        if len(held) < end:
            return
        self._credential = read_pair(
            held[2:user_end].decode("latin-1"), held[user_end + 1 : end].decode("latin-1")
        )
        self._send(bytes((_PASSWORD_VERSION, _SUCCEEDED)))
        self._next(_Step.REQUEST, end)

    def _request(self) -> None:
        self._check_version(VERSION)
        if len(self._held) < 4:
            return
        command = self._held[1]
        if command not in (_CONNECT, _ASSOCIATE):
            detail = "SOCKS5 with a command other than CONNECT and UDP ASSOCIATE"
            raise SocksUnfit(_COMMAND_NOT_SUPPORTED, Reason.UNSUPPORTED, detail)
        found = read_address(self._held, 3)
        if found is None:
            return
        host, port, end = found
        if port == 0 and command == _CONNECT:
            raise Unfit(Reason.MALFORMED, "CONNECT to port 0")
        self._speech = Speech.SOCKS5 if command == _CONNECT else Speech.ASSOCIATE
        del self._held[:end]
        self._ask(Request(self._speech, host, port, self._credential))

    def _admitted(self, opened: Opened) -> None:
        """The reply has the relay's address for an association, and else where the connection comes from."""
        self._send(_reply(_SUCCEEDED, format_address(opened.local, opened.local_port)))
        # The connection of an association carries nothing; it only says how long.
        self._relay(bytes(self._held) if self._speech is Speech.SOCKS5 else b"")

    def _told(self, unfit: Unfit) -> bytes:
        match self._step:
            case _Step.GREETING:
                return bytes((VERSION, _NO_METHOD))
            case _Step.PASSWORD:
                return bytes((_PASSWORD_VERSION, _FAILED))
        code = unfit.code if isinstance(unfit, SocksUnfit) else _CODES.get(unfit.reason, _NOT_ALLOWED)
        return _reply(code, _NOWHERE)

    def _check_version(self, version: int) -> None:
        if self._held and self._held[0] != version:
            raise Unfit(Reason.MALFORMED, f"a version of SOCKS5's messages is {self._held[0]}, not {version}")

    def _next(self, step: _Step, end: int) -> None:
        del self._held[:end]
        self._step = step


def _reply(code: int, address: bytes) -> bytes:
    return bytes((VERSION, code, 0)) + address
