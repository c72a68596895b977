"""Protocols a mapping may name, and what carries each on the wire."""

from enum import StrEnum

from marchproxy.model.errors import InvalidValue


class Protocol(StrEnum):
    """`tcp`, `udp`, `icmp` are carried as they are; `http`, `https` and `grpc` run over TCP, `quic` over UDP.

    `icmp` covers ICMPv6.
    """

    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    HTTP = "http"
    HTTPS = "https"
    GRPC = "grpc"
    QUIC = "quic"

    @property
    def transport(self) -> "Transport | None":
        """TCP or UDP, None for ICMP."""
        return _TRANSPORT.get(self)


OVER_HTTP = frozenset({Protocol.HTTP, Protocol.HTTPS, Protocol.GRPC})
"""Those that consist of HTTP requests, over TCP."""
WITH_HTTP3 = OVER_HTTP | {Protocol.QUIC}
"""And where TLS is spoken, `quic` beside `https` is HTTP/3; elsewhere it passes through unread."""


class Transport(StrEnum):
    """What has ports."""

    TCP = "tcp"
    UDP = "udp"

    @property
    def number(self) -> int:
        """The IANA protocol number."""
        return 6 if self is Transport.TCP else 17


_TRANSPORT = {
    Protocol.TCP: Transport.TCP,
    Protocol.HTTP: Transport.TCP,
    Protocol.HTTPS: Transport.TCP,
    Protocol.GRPC: Transport.TCP,
    Protocol.UDP: Transport.UDP,
    Protocol.QUIC: Transport.UDP,
}


def parse_protocol(text: str, *, field: str = "protocol") -> Protocol:
    """Read one protocol name, in any case."""
    try:
        return Protocol(text.strip().lower())
    except ValueError:
        raise InvalidValue(field, text, "one of " + ", ".join(Protocol)) from None


def parse_protocols(text: str, *, field: str = "protocol") -> tuple[Protocol, ...]:
    """Read a comma-separated list; duplicates fold and the order is the enum's."""
    named = {parse_protocol(part, field=field) for part in text.split(",")}
    return tuple(protocol for protocol in Protocol if protocol in named)
