"""The browser's way in: only for whoever has the key, only on loopback, only from its own page."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiohttp import ClientSession, CookieJar, WSMsgType, WSServerHandshakeError
from yarl import URL

from tests.tui.webserver import serving

type Ask = Callable[[ClientSession], Awaitable[None]]


@pytest.fixture(scope="module")
def address() -> Iterator[URL]:
    """What `marchproxy tui --web` prints."""
    with serving() as printed:
        yield printed


def browse(ask: Ask) -> None:
    async def run() -> None:
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
            await ask(session)

    asyncio.run(run())


def test_the_address_opens_it_and_nothing_else_does(address: URL) -> None:
    async def ask(session: ClientSession) -> None:
        page = address.with_query(None)
        assert page.host == "127.0.0.1"
        for other in (page, page / "ws", page / "static/js/textual.js", page.with_query(key="guess")):
            async with session.get(other) as answer:
                assert answer.status == 403, other
        async with session.get(address) as answer:
            assert answer.status == 200
            assert answer.url == page
            assert "MarchProxy" in await answer.text()
            # The page names a font of Google's; the browser is not to ask for it.
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        (cookie,) = session.cookie_jar
        assert cookie["httponly"]
        assert cookie["samesite"] == "Strict"

    browse(ask)


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example:80"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_other_pages_and_names_are_refused_in_spite_of_the_key(address: URL, headers: dict[str, str]) -> None:
    async def ask(session: ClientSession) -> None:
        async with session.get(address) as answer:
            assert answer.status == 200
        async with session.get(address, headers=headers) as answer:
            assert answer.status == 403
        with pytest.raises(WSServerHandshakeError):
            await session.ws_connect(address.with_query(None) / "ws", headers=headers)

    browse(ask)


def test_a_window_shows_the_screens(address: URL) -> None:
    async def ask(session: ClientSession) -> None:
        async with session.get(address):
            pass
        async with session.ws_connect(address.with_query(None) / "ws") as socket, asyncio.timeout(30):
            heard = b""
            while b"Overview" not in heard:
                message = await socket.receive()
                assert message.type in (WSMsgType.BINARY, WSMsgType.TEXT)
                heard += message.data if message.type is WSMsgType.BINARY else message.data.encode()

    browse(ask)


def test_a_port_that_is_taken_is_said(address: URL) -> None:
    words = [sys.executable, "-m", "marchproxy", "tui", "--web", "--port", str(address.port)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 4
    assert f"127.0.0.1:{address.port} cannot be served" in done.stderr
    assert "--port takes another" in done.stderr
