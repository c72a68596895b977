"""Sessions of QUIC that go on later (RFC 8446 section 2.2), at whatever worker: their tickets hold all that
is to be known, sealed with a key that all workers have.

Nothing may be said in them before the handshake is complete: what is asked then (0-RTT) may have been
recorded and said again, and comes from an address that nobody has shown to be its own.
"""

import hashlib
import os
import struct
import time
from datetime import UTC, datetime

from aioquic.tls import CipherSuite, NewSessionTicket, SessionTicket
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LIFETIME = 7200
"""Seconds, as OpenSSL has it for TLS over TCP."""
_NONCE = 12
_HEAD = struct.Struct("!HId")
"""Cipher suite, what the client adds to the ticket's age, and when it was made: seconds since the epoch."""


class Sessions:
    """Those of one certificate."""

    def __init__(self, secret: bytes, scope: str) -> None:
        """`secret`: of all workers; `scope`: what tells these sessions from those of other certificates."""
        self._scope = scope
        self._cipher = AESGCM(hashlib.shake_256(secret + b"quic " + scope.encode()).digest(32))

    @staticmethod
    def ticket() -> NewSessionTicket:
        """One that is still to be sealed."""
        return NewSessionTicket(ticket_lifetime=LIFETIME, ticket_age_add=int.from_bytes(os.urandom(4)))

    def seal(self, session: SessionTicket, host: str) -> bytes:
        """The ticket of a session that began for this host."""
        nonce = os.urandom(_NONCE)
        head = _HEAD.pack(session.cipher_suite, session.age_add, session.not_valid_before.timestamp())
        return nonce + self._cipher.encrypt(nonce, head + session.resumption_secret, host.encode())

    def open(self, ticket: bytes, host: str) -> SessionTicket | None:
        """The session that goes on for this host; None: it is none of ours, or over."""
        try:
            held = self._cipher.decrypt(ticket[:_NONCE], ticket[_NONCE:], host.encode())
        except (InvalidTag, ValueError):
            return None
        suite, added, since = _HEAD.unpack_from(held)
        if not 0 <= time.time() - since + 1 <= LIFETIME:
            return None
        return SessionTicket(
            age_add=added,
            cipher_suite=CipherSuite(suite),
            not_valid_before=datetime.fromtimestamp(since, UTC),
            not_valid_after=datetime.fromtimestamp(since + LIFETIME, UTC),
            resumption_secret=held[_HEAD.size :],
            server_name=host,
            ticket=ticket,
        )
