"""Key sets of issuers, fetched from where they publish them: one GET, bounded in time and size."""

import asyncio
import io
import json
import socket
import ssl
from http.client import HTTPException, HTTPResponse
from typing import cast
from urllib.parse import urlsplit

from marchproxy.model.errors import InvalidValue
from marchproxy.model.publickey import PublicKey, parse_set

DEADLINE = 10.0
"""Seconds for all of it: name, connection, TLS and answer."""
MOST_BYTES = 256 * 1024
"""Of an answer with its head. The largest issuers publish some 20,000."""
_PORTS = {"http": 80, "https": 443}


class JwksFailed(Exception):
    """No key set came; the text says why."""


async def fetch(url: str, *, tls: ssl.SSLContext | None = None) -> tuple[PublicKey, ...]:
    """Fetch the key set at an address that `parse_jwks_url` let through. Raises `JwksFailed`.

    `tls`: whom to trust; by default, whom the system trusts. Redirects are not followed: what an operator
    trusts is the address that was given.
    """
    try:
        async with asyncio.timeout(DEADLINE):
            answer = await _exchange(url, tls)
        return parse_set(json.loads(_body(answer)))
    except TimeoutError:
        raise JwksFailed(f"{url}: no answer within {DEADLINE:.0f} s") from None
    except InvalidValue as error:
        raise JwksFailed(f"{url}: {error.message}, expected {error.expected}") from None
    except OSError as error:
        raise JwksFailed(f"{url}: {error.strerror or error}") from None
    except (HTTPException, ValueError, RecursionError) as error:
        raise JwksFailed(f"{url}: the answer is no key set ({type(error).__name__})") from None


async def _exchange(url: str, tls: ssl.SSLContext | None) -> bytes:
    parts = urlsplit(url)
    if parts.scheme == "https" and tls is None:
        tls = await asyncio.to_thread(ssl.create_default_context)
    reader, writer = await asyncio.open_connection(
        parts.hostname,
        parts.port or _PORTS[parts.scheme],
        ssl=tls if parts.scheme == "https" else None,
    )
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = (
            f"GET {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "User-Agent: marchproxy",
            "Accept: application/json",
            "Connection: close",
        )
        writer.write("\r\n".join((*lines, "", "")).encode("ascii"))
        answer = bytearray()
        while piece := await reader.read(65_536):
            answer += piece
            if len(answer) > MOST_BYTES:
                raise JwksFailed(f"{url}: the answer has more than {MOST_BYTES} bytes")
        return bytes(answer)
    finally:
        # Not closed and waited for: a server that does not close its side would hold us beyond the deadline.
        writer.transport.abort()


class _Received:
    """An answer in memory, as much of a socket as the reader of HTTP asks for."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)


def _body(answer: bytes) -> bytes:
    response = HTTPResponse(cast("socket.socket", _Received(answer)))
    response.begin()
    if response.status != 200:
        raise HTTPException(f"status {response.status}")
    return response.read()
