"""Keys of TLS session tickets (RFC 5077, RFC 8446 section 4.6.1), which all workers of a daemon share.

OpenSSL makes keys of its own for each context: a session would be resumed only by the process that began it,
and never after a certificate was renewed. Ours are made of one secret and of what a context is for.
"""

import hashlib
import secrets
import ssl
import time

from marchproxy.dataplane.credentials.openssl import KEYS_SIZE, set_ticket_keys

LIFETIME = 12 * 3600.0
"""Seconds after which there is another secret. OpenSSL knows one key at a time: sessions of before end with
it and have to begin anew, so nobody goes on for longer with what was checked then."""
SECRET = 32


class Tickets:
    """The secret."""

    __slots__ = ("_ends", "secret")

    def __init__(self, secret: bytes | None = None) -> None:
        """`secret`: of somebody who gives us the next one, too; without one it is ours and ends by itself."""
        self.secret = secret or secrets.token_bytes(SECRET)
        self._ends = float("inf") if secret else time.monotonic() + LIFETIME

    def renew(self) -> bool:
        """Make another secret, if this one has ended; whether it had."""
        now = time.monotonic()
        if now < self._ends:
            return False
        self.secret, self._ends = secrets.token_bytes(SECRET), now + LIFETIME
        return True

    def guard(self, context: ssl.SSLContext, scope: object) -> bool:
        """Have sessions of `context` resumed by all contexts of the same scope, by those alone, wherever the
        secret is the same; False: OpenSSL cannot be told.

        `scope` is all that was decided when a session began. Its `repr` must say it: texts, numbers, tuples
        and dataclasses of these.
        """
        keys = hashlib.shake_256(self.secret + repr(scope).encode()).digest(KEYS_SIZE)
        return set_ticket_keys(context, keys)
