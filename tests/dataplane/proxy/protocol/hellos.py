"""Hellos of TLS clients: real ones from OpenSSL, and made ones."""

import ssl
from collections.abc import Sequence


def real_hello(name: str | None, alpn: Sequence[str] = ()) -> bytes:
    """What OpenSSL says first; a text that is an address becomes no server name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake ended before it began")


def vector(size: int, *parts: bytes) -> bytes:
    """A length of `size` bytes and what it counts."""
    data = b"".join(parts)
    return len(data).to_bytes(size) + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2) + vector(2, data)


def names(*hosts: bytes, kind: int = 0) -> bytes:
    """The extension with server names."""
    return extension(0, vector(2, *(bytes((kind,)) + vector(2, host) for host in hosts)))


def message(*extensions: bytes, behind: bytes = b"") -> bytes:
    """A hello as a handshake message."""
    start = b"\x03\x03" + bytes(32) + vector(1) + vector(2, b"\x13\x01") + vector(1, b"\0")
    return b"\x01" + vector(3, start, vector(2, *extensions), behind)


def records(data: bytes, size: int = 16_384) -> bytes:
    """Handshake records of at most `size` bytes each."""
    return b"".join(
        b"\x16\x03\x01" + vector(2, data[start : start + size]) for start in range(0, len(data), size)
    )


def hello(*extensions: bytes) -> bytes:
    return records(message(*extensions))
