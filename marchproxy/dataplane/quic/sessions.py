"""Sessions of QUIC that go on later (RFC 8446 section 2.2), at whatever worker: their tickets hold all that
is to be known, sealed with a key that all workers have.

Something may be said in them before the handshake is complete (0-RTT) where their ticket has a memo for that;
`early` says whose is taken.
"""

import hashlib
import os
import struct
import time
from datetime import UTC, datetime
from typing import NamedTuple

from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.tls import CipherSuite, NewSessionTicket, SessionTicket
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LIFETIME = 7200
"""Seconds, as OpenSSL has it for TLS over TCP."""
_NONCE = 12
_HEAD = struct.Struct("!HIdB")
"""Cipher suite, what the client adds to the ticket's age, when it was made (seconds since the epoch), and the
size of a memo."""


class Opened(NamedTuple):
    """A session that goes on."""

    session: SessionTicket
    memo: bytes
    """Of who has sealed it."""


class Sessions:
    """Those of one certificate."""

    def __init__(self, secret: bytes, scope: str) -> None:
        """`secret`: of all workers; `scope`: what tells these sessions from those of other certificates."""
        self._scope = scope
        self._cipher = AESGCM(hashlib.shake_256(secret + b"quic " + scope.encode()).digest(32))

    @staticmethod
    def ticket(*, early: bool = False) -> NewSessionTicket:
        """One that is still to be sealed. `early`: its client may speak at once, with it."""
        return NewSessionTicket(
            ticket_lifetime=LIFETIME,
            ticket_age_add=int.from_bytes(os.urandom(4)),
            max_early_data_size=MAX_EARLY_DATA if early else None,
        )

    def seal(self, session: SessionTicket, host: str, memo: bytes = b"") -> bytes:
        """The ticket of a session that began for this host, with a memo of at most 255 bytes."""
        nonce = os.urandom(_NONCE)
        began = session.not_valid_before.timestamp()
        head = _HEAD.pack(session.cipher_suite, session.age_add, began, len(memo))
        return nonce + self._cipher.encrypt(nonce, head + memo + session.resumption_secret, host.encode())

    def open(self, ticket: bytes, host: str) -> Opened | None:
        """The session that goes on for this host; None: it is none of ours, or over."""
        try:
            held = self._cipher.decrypt(ticket[:_NONCE], ticket[_NONCE:], host.encode())
        except (InvalidTag, ValueError):
            return None
        suite, added, since, size = _HEAD.unpack_from(held)
        if not 0 <= time.time() - since + 1 <= LIFETIME:
            return None
        ends = _HEAD.size + size
        session = SessionTicket(
            age_add=added,
            cipher_suite=CipherSuite(suite),
            not_valid_before=datetime.fromtimestamp(since, UTC),
            not_valid_after=datetime.fromtimestamp(since + LIFETIME, UTC),
            resumption_secret=held[ends:],
            server_name=host,
            ticket=ticket,
        )
        return Opened(session, held[_HEAD.size : ends])
