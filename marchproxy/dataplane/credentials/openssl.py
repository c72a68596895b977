"""What Python's ssl has no way to: by OpenSSL itself (3.0), through the library that `ssl` is linked to.

Where it cannot be reached, contexts stay as they are.
"""

import _ssl
import ctypes
import ssl
import sys
from functools import cache
from typing import Any

KEYS_SIZE = 80
"""Bytes of the keys of session tickets: a name, a key for HMAC and one for AES-256."""
_GET_KEYS, _SET_KEYS = 58, 59
"""SSL_CTRL_GET_TLSEXT_TICKET_KEYS and SSL_CTRL_SET_TLSEXT_TICKET_KEYS, openssl/ssl.h."""


def set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> bool:
    """Have tickets made and opened by `keys`, which are `KEYS_SIZE` bytes
    (SSL_CTX_set_tlsext_ticket_keys(3)); False: OpenSSL cannot be told.
    """
    control = _control()
    return control is not None and bool(control(_pointer(context), _SET_KEYS, KEYS_SIZE, keys) == 1)


def set_suites(context: ssl.SSLContext, suites: str) -> bool:
    """The suites of TLS 1.3, best first (SSL_CTX_set_ciphersuites(3)); False: OpenSSL cannot be told."""
    if _control() is None:
        return False
    told = _library().SSL_CTX_set_ciphersuites
    told.argtypes, told.restype = (ctypes.c_void_p, ctypes.c_char_p), ctypes.c_int
    return bool(told(_pointer(context), suites.encode("ascii")) == 1)


def _pointer(context: ssl.SSLContext) -> ctypes.c_void_p:
    """The SSL_CTX, first member of PySSLContext (Modules/_ssl.c, Python 3.6 to 3.14)."""
    return ctypes.c_void_p.from_address(id(context) + object.__basicsize__)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(_ssl.__file__)


@cache
def _control() -> Any:
    """SSL_CTX_ctrl; None: it is another library, or out of reach."""
    if sys.implementation.name != "cpython" or not hasattr(_ssl, "__file__"):
        return None
    try:
        found = _library().SSL_CTX_ctrl
    except (OSError, AttributeError):
        return None
    found.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    found.restype = ctypes.c_long
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return found if found(_pointer(context), _GET_KEYS, 0, None) == KEYS_SIZE else None
