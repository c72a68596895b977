"""Heads of QUIC packets (RFC 8999, RFC 9000 section 17), with nothing in them that anybody could decrypt."""

VERSION = 1


def long_header(destination: bytes, source: bytes, *, version: int = VERSION, first: int = 0xC0) -> bytes:
    """An Initial packet, as far as it can be read."""
    ids = b"".join(bytes([len(each)]) + each for each in (destination, source))
    return bytes([first]) + version.to_bytes(4) + ids + bytes(40)


def short_header(destination: bytes) -> bytes:
    """A packet of a connection that stands."""
    return b"\x40" + destination + bytes(range(40))
