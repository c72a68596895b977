"""The same screens in a browser, through textual-serve on loopback, for whoever has the key.

textual-serve asks nobody who they are, and what it serves may change the appliance: any user of this host
could, and any page in a browser that guesses the port. So the address has a key, which becomes a cookie; what
names another host (DNS rebinding) or comes from another page (cross-site WebSocket) is refused.
"""

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web
from textual_serve.server import Server

HOST = "127.0.0.1"
_COOKIE = "marchproxy_key"
_POLICY = (
    "default-src 'self'; connect-src 'self' ws://{own}; img-src 'self' data:; font-src 'self' data:;"
    " style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
"""textual-serve's page asks Google for a font, which an operator's browser has no reason to do."""

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GuardedServer(Server):
    """Serves `command`, a shell's command line, one process for each browser window."""

    def __init__(self, command: str, port: int) -> None:
        super().__init__(
            command, host=HOST, port=port, title="MarchProxy", public_url=f"http://{HOST}:{port}"
        )
        self._key = secrets.token_urlsafe(32)

    @property
    def address(self) -> str:
        """What to open in the browser; a secret."""
        return f"{self.public_url}/?key={self._key}"

    def initialize_logging(self) -> None:
        """Only what went wrong, and no request: the first one has the key in it."""
        logging.basicConfig(level="ERROR", format="%(message)s")

    async def _make_app(self) -> web.Application:
        app: web.Application = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        own = f"{HOST}:{self.port}"
        origin = request.headers.get("Origin")
        if request.host != own or (origin is not None and origin != f"http://{own}"):
            raise web.HTTPForbidden(text="this is not the address that marchproxy tui --web printed\n")
        if request.path == "/" and self._is_key(request.query.get("key", "")):
            opened = web.HTTPFound("/")
            opened.set_cookie(_COOKIE, self._key, httponly=True, samesite="Strict")
            raise opened
        if not self._is_key(request.cookies.get(_COOKIE, "")):
            raise web.HTTPForbidden(text="open the whole address that marchproxy tui --web printed\n")
        answer = await handler(request)
        if not answer.prepared:
            answer.headers["Content-Security-Policy"] = _POLICY.format(own=own)
            answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    def _is_key(self, said: str) -> bool:
        return hmac.compare_digest(said.encode(), self._key.encode())
