"""TLS alerts in the clear, for clients whose handshake never begins (RFC 8446 section 6)."""

from enum import IntEnum


class Alert(IntEnum):
    """Descriptions, as clients show them."""

    HANDSHAKE_FAILURE = 40
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    UNRECOGNIZED_NAME = 112


def fatal(alert: Alert) -> bytes:
    """One record with a fatal alert; its version is that of TLS 1.2, which every client takes."""
    return bytes((0x15, 0x03, 0x03, 0x00, 0x02, 0x02, alert))
