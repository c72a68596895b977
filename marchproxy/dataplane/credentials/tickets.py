"""Keys of TLS session tickets (RFC 5077, RFC 8446 section 4.6.1), which all workers of a daemon share.

OpenSSL makes keys of its own for each context: a session would be resumed only by the process that began it,
and never after a certificate was renewed. Ours are made of one secret and of what a context is for. Python's
ssl has no way to set them, so OpenSSL is called through the library that it is linked to (3.0; SSL_CTX_ctrl,
SSL_CTX_set_tlsext_ticket_keys(3)). Where it cannot be reached each context keeps the keys that it has.
"""

import _ssl
import ctypes
import hashlib
import secrets
import ssl
import sys
import time
from functools import cache
from typing import Any

LIFETIME = 12 * 3600.0
"""Seconds after which there is another secret. OpenSSL knows one key at a time: sessions of before end with
it and have to begin anew, so nobody goes on for longer with what was checked then."""
SECRET = 32
_GET_KEYS, _SET_KEYS = 58, 59
"""SSL_CTRL_GET_TLSEXT_TICKET_KEYS and SSL_CTRL_SET_TLSEXT_TICKET_KEYS, openssl/ssl.h."""
_SIZE = 80
"""Bytes of a name, of a key for HMAC and of one for AES-256."""


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
        control = _control()
        if control is None:
            return False
        keys = hashlib.shake_256(self.secret + repr(scope).encode()).digest(_SIZE)
        return bool(control(_pointer(context), _SET_KEYS, _SIZE, keys) == 1)


def _pointer(context: ssl.SSLContext) -> ctypes.c_void_p:
    """The SSL_CTX, first member of PySSLContext (Modules/_ssl.c, Python 3.6 to 3.14)."""
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__)


@cache
def _control() -> Any:
    """SSL_CTX_ctrl of the OpenSSL that Python's ssl uses; None: it is another library, or out of reach."""
    if sys.implementation.name != "cpython" or not hasattr(_ssl, "__file__"):
        return None
    try:
        found = ctypes.CDLL(_ssl.__file__).SSL_CTX_ctrl
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    found.restype = ctypes.c_long
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return found if found(_pointer(context), _GET_KEYS, 0, None) == _SIZE else None
