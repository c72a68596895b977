"""TLS (RFC 8446, RFC 5246) between bytes on the wire and bytes of a client, without I/O: OpenSSL on memory.

A direction ends by close_notify, each by itself: who has said that it sends no more may still receive, as
with TCP (RFC 8446 section 6.1).
"""

import ssl
from contextlib import suppress

MAX_UNSENT = 64 * 1024
"""Bytes that a peer can have us answer, alerts for one, while nothing is sent to it."""
RECORD = 16 * 1024
"""Bytes that OpenSSL is given at once: its buffers in memory grow to that, and never shrink."""
MAX_PIECE = 128 * 1024
"""Bytes that may be given to `open` at once."""
_SCRATCH = MAX_PIECE + 64 * 1024
"""A piece, and what was left of the one before: less than a record of 16 KiB and its frame."""

_scratch = memoryview(bytearray(_SCRATCH))
"""Where what is opened goes. One is enough: it is written on before anything else can run."""


class Secured:
    """One connection's TLS. What OpenSSL refuses is raised as `ssl.SSLError`, which is an `OSError`."""

    __slots__ = ("_incoming", "_outgoing", "closed", "ended", "established", "tls")

    def __init__(
        self, context: ssl.SSLContext, *, server: bool = True, server_name: str | None = None
    ) -> None:
        """`server_name`: of a client, whom it expects."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=server_name
        )
        """To be asked what was agreed on, and for nothing else."""
        self.established = False
        """The handshake is over."""
        self.ended = False
        """The peer has said that it sends no more."""
        self.closed = False
        """We have."""

    def shake(self, data: bytes | memoryview) -> bool:
        """Go on with the handshake, given what came, `RECORD` bytes at most; whether it is over. What
        is to be sent, `unsent` has, also where this raises.
        """
        self._incoming.write(data)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.established = True
        return True

    def unsent(self) -> bytes:
        """What is to be sent by now; it is the caller's from then on."""
        return self._outgoing.read()

    def open(self, data: bytes | memoryview) -> memoryview:
        """What is in the pieces that came so far, `MAX_PIECE` bytes at most: to be used before the next call
        for any connection.

        After the peer's close_notify there is nothing more. Raises `ConnectionResetError` for a peer that
        wants too many answers.
        """
        rest = memoryview(data)
        size = 0
        while not self.ended:
            self._incoming.write(rest[:RECORD])
            rest = rest[RECORD:]
            size = self._read(size)
            if not rest:
                break
        if self._outgoing.pending > MAX_UNSENT:
            raise ConnectionResetError("it wants answers and reads none")
        return _scratch[:size]

    def _read(self, size: int) -> int:
        """Open what is there behind the first `size` bytes; how many there are then."""
        # To be told by an exception that nothing is there takes longer than what is opened.
        while not self.ended and (self._incoming.pending or self.tls.pending()):
            try:
                # OpenSSL opens one record at a time.
                got = int(self.tls.read(_SCRATCH - size, _scratch[size:]))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                got = 0
            self.ended = not got
            size += got
        return size

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """What to send for these bytes, and for what was to be sent before."""
        if 0 < len(data) <= RECORD:
            self.tls.write(data)
            return self._outgoing.read()
        rest = memoryview(data)
        sealed = [self._outgoing.read()]
        while rest:
            rest = rest[self.tls.write(rest[:RECORD]) :]
            sealed.append(self._outgoing.read())
        return b"".join(sealed)

    def close(self) -> bytes:
        """What to send to say that we send no more, unless that was said.

        All that came should have been opened: OpenSSL reads on here, and takes data behind our own end for an
        error, which it is not.
        """
        if not self.closed:
            self.closed = True
            # It is said by the time that anything is raised; SSLWantReadError: the peer has not said it yet.
            with suppress(ssl.SSLError):
                self.tls.unwrap()
        return self._outgoing.read()
