"""Connections of a small HTTP/1.1 server, under limits and deadlines; `http1` says what a request may be."""

import asyncio
import inspect
import json
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus

from marchproxy.dataplane.control.http1 import (
    HttpError,
    Request,
    Response,
    body_length,
    parse_head,
    render_chunk,
    render_head,
)
from marchproxy.dataplane.tasks import Tasks
from marchproxy.model.errors import Conflict, InvalidValue, MarchproxyError, NotFound, NotPermitted

log = logging.getLogger(__name__)

type Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost. Sizes in bytes, times in seconds."""

    head: int = 16 * 1024
    body: int = 1024 * 1024
    connections: int = 64
    """Beyond them, whoever has been longest without a whole request gives way to a newcomer."""
    streams: int = 32
    """Bodies without end among them: followers must leave room for questions."""
    idle: float = 10.0
    """For a whole head, a whole body, and a response to be taken."""
    stall: float = 60.0
    """For a piece of a stream to be taken: people pause what scrolls past, and are told what they missed."""
    linger: float = 1.0
    """For a refused client to stop sending, so that a reset does not overtake the answer."""


class HttpServer:
    """Serves one listening socket. The handler's `HttpError` and `MarchproxyError` become JSON errors."""

    def __init__(self, name: str, handler: Handler, *, limits: Limits | None = None) -> None:
        self._name = name
        self._handler = handler
        self._limits = limits or Limits()
        self._tasks = Tasks()
        self._waiting: dict[asyncio.StreamWriter, None] = {}
        """Connections whose request is not there yet, or whose answer is not taken, the longest first."""
        self._connections = 0
        """Not the tasks: one that has just let go of its connection is still among them."""
        self._streams = 0
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Accept on `listening`, bound and of any stream family, which the server owns from now on."""
        serve = asyncio.start_unix_server if listening.family == socket.AF_UNIX else asyncio.start_server
        self._server = await serve(self._accepted, sock=listening, limit=self._limits.head)

    async def close(self) -> None:
        """Stop accepting and end every connection, streams included."""
        if self._server:
            self._server.close()
        await self._tasks.stop()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serve = self._serve
        if self._connections >= self._limits.connections and not self._make_room():
            # Left in the accept queue, a client would never learn that it is one too many.
            serve = self._turn_away
        if self._connections >= 2 * self._limits.connections:
            writer.transport.abort()
            return
        self._connections += 1
        self._waiting[writer] = None
        self._tasks.start(serve(reader, writer), name=f"{self._name} client")

    def _make_room(self) -> bool:
        """End the connection that has kept us waiting longest; False where all are at work.

        Half-open connections, however many, thus keep nobody from asking: who asks at once is not the oldest.
        """
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            return False
        del self._waiting[oldest]
        oldest.transport.abort()
        return True

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._write(writer, _rendered(_overloaded(self._limits.connections)))
            await self._linger(reader, writer)
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            self._forget(writer)

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._connections -= 1
        self._waiting.pop(writer, None)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("%s: a client went away: %s", self._name, error)
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self._forget(writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its response; False when the connection is over."""
        self._waiting[writer] = None
        try:
            request = await self._read(reader)
        except HttpError as error:
            await self._send(writer, error_response(error), None)
            await self._linger(reader, writer)
            return False
        finally:
            self._waiting.pop(writer, None)
        if request is None:
            return False
        response = await self._answer(request)
        if isinstance(response.body, bytes):
            await self._send(writer, response, request)
        else:
            await self._stream(reader, writer, response, response.body, request)
        return request.keep_alive and isinstance(response.body, bytes)

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            async with asyncio.timeout(self._limits.idle):
                head = await reader.readuntil(b"\r\n\r\n")
                request = parse_head(head)
                length = body_length(request, self._limits.body)
                body = await reader.readexactly(length)
        except asyncio.LimitOverrunError:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            message = f"a request's head may have {self._limits.head} bytes"
            raise HttpError(status, "HeadTooLarge", message) from None
        except asyncio.IncompleteReadError:
            return None
        except TimeoutError:
            message = f"no whole request within {self._limits.idle:g} s"
            raise HttpError(HTTPStatus.REQUEST_TIMEOUT, "RequestTimeout", message) from None
        return replace(request, body=body)

    async def _answer(self, request: Request) -> Response:
        try:
            # RFC 9110 section 9.3.2: HEAD is GET without the body.
            wanted = replace(request, method="GET", head_only=True) if request.method == "HEAD" else request
            return await self._handler(wanted)
        except HttpError as error:
            return error_response(error)
        except MarchproxyError as error:
            return error_response(as_http(error))
        except Exception as error:
            log.error("%s %s failed: %s: %s", request.method, request.path, type(error).__name__, error)
            log.debug("%s %s", request.method, request.path, exc_info=True)
            message = f"the daemon could not answer: {type(error).__name__}"
            return error_response(HttpError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", message))

    async def _send(self, writer: asyncio.StreamWriter, response: Response, request: Request | None) -> None:
        keep_alive = request is not None and request.keep_alive
        self._waiting[writer] = None
        try:
            await self._write(writer, _rendered(response, keep_alive=keep_alive, request=request))
        finally:
            self._waiting.pop(writer, None)

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        response: Response,
        pieces: AsyncGenerator[bytes],
        request: Request,
    ) -> None:
        """Send a body as it comes, and watch for the client to go. A stream ends its connection."""
        if self._streams >= self._limits.streams:
            await _let_go(pieces)
            await self._send(writer, _overloaded(self._limits.streams, "streams"), None)
            return
        self._streams += 1
        try:
            await self._pour(reader, writer, response, pieces, request)
        finally:
            self._streams -= 1
            await _let_go(pieces)

    async def _pour(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        response: Response,
        pieces: AsyncGenerator[bytes],
        request: Request,
    ) -> None:
        chunked = request.chunked
        await self._write(writer, render_head(response, keep_alive=False, chunked=chunked))
        if request.method == "HEAD":
            return
        watcher = self._tasks.start(_cancel_when_gone(reader, asyncio.current_task()), name="stream watcher")
        try:
            # Closed here and now: a subscription that a stream holds must not wait for the collector.
            async with aclosing(pieces):
                async for piece in pieces:
                    data = render_chunk(piece) if chunked else piece
                    await self._write(writer, data, self._limits.stall)
                    # A write that does not block does not let go of the loop either.
                    await asyncio.sleep(0)
            await self._write(writer, render_chunk(b"") if chunked else b"")
        finally:
            watcher.cancel()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes, seconds: float | None = None) -> None:
        writer.write(data)
        async with asyncio.timeout(self._limits.idle if seconds is None else seconds):
            await writer.drain()

    async def _linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(TimeoutError, OSError):
            writer.write_eof()
            async with asyncio.timeout(self._limits.linger):
                while await reader.read(self._limits.head):
                    pass


def as_http(error: MarchproxyError, status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR) -> HttpError:
    """An operator's error as a response; `status` for classes without one of their own."""
    known = (
        (InvalidValue, HTTPStatus.BAD_REQUEST),
        (NotFound, HTTPStatus.NOT_FOUND),
        (NotPermitted, HTTPStatus.FORBIDDEN),
        (Conflict, HTTPStatus.CONFLICT),
    )
    chosen = next((code for kind, code in known if isinstance(error, kind)), status)
    return HttpError(chosen, type(error).__name__, error.message, hint=error.hint)


def error_response(error: HttpError) -> Response:
    """`{"error": {"name", "message", "hint"}}`."""
    document = {"error": {"name": error.name, "message": error.message, "hint": error.hint}}
    return Response(json.dumps(document).encode() + b"\n", status=error.status, headers=error.headers)


def _overloaded(number: int, what: str = "connections") -> Response:
    message = f"there are {number} {what} already"
    return error_response(HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "TooManyConnections", message))


def _rendered(response: Response, *, keep_alive: bool = False, request: Request | None = None) -> bytes:
    head = render_head(response, keep_alive=keep_alive, chunked=False)
    body = b"" if request and request.method == "HEAD" else response.body
    return head + body if isinstance(body, bytes) else head


async def _let_go(pieces: AsyncGenerator[bytes]) -> None:
    """End a body, sent or not, and release what it has."""
    if inspect.getasyncgenstate(pieces) == inspect.AGEN_CREATED:
        # What has not begun does nothing at its end, and may have been given something already.
        with suppress(StopAsyncIteration):
            await anext(pieces)
    await pieces.aclose()


async def _cancel_when_gone(reader: asyncio.StreamReader, task: "asyncio.Task[None] | None") -> None:
    # One that goes without having read everything is a reset, not an end.
    with suppress(OSError):
        await reader.read(1)
    if task:
        task.cancel()
