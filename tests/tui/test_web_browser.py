"""The same screens in a real browser: they are drawn, take keys, and ask nobody else for anything."""

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse
from yarl import URL

from tests.tui.webserver import serving

pytestmark = pytest.mark.requires(commands=["chromium"])

PATIENCE = 60
"""Seconds for a browser to start on a machine that is busy with something else."""
CATCH = """
Object.defineProperty(Object.prototype, "websocket_url", {set(url) {
  Object.defineProperty(this, "websocket_url", {value: url, writable: true});
  window.caught = this;
}});
"""
"""The page draws on a canvas, and keeps the terminal that knows the text to itself."""
READ = """
(() => {
  const screen = window.caught?.terminal?.buffer.active;
  const rows = [...Array(screen?.length ?? 0).keys()];
  const lines = rows.map((at) => screen.getLine(at).translateToString(true));
  const canvas = document.querySelector("#terminal canvas");
  return JSON.stringify({text: lines.join("\\n"), drawn: (canvas?.width ?? 0) * (canvas?.height ?? 0),
                         shown: document.body?.classList.contains("-first-byte") ?? false});
})()
"""
FOCUS = "document.querySelector('#terminal textarea').focus()"


class Page:
    """A tab of the browser, by the DevTools protocol."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.told: list[dict[str, Any]] = []
        """What happened meanwhile."""

    async def call(self, method: str, **parameters: Any) -> Any:
        """Ask for something, and wait until it is done."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            said = await self._socket.receive_json()
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self.told.append(said)

    def happened(self, method: str) -> list[dict[str, Any]]:
        """What one kind of event told."""
        return [said["params"] for said in self.told if said.get("method") == method]

    async def until(self, holds: Callable[[Any], bool]) -> Any:
        """What is on the screen, once `holds` of it."""
        while True:
            answer = await self.call("Runtime.evaluate", expression=READ, returnByValue=True)
            seen = json.loads(answer["result"]["value"])
            if holds(seen):
                return seen
            await asyncio.sleep(0.2)

    async def press(self, key: str) -> None:
        """One key that writes something, into the terminal, which a person has clicked on."""
        await self.call("Runtime.evaluate", expression=FOCUS)
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)


@asynccontextmanager
async def browser() -> AsyncGenerator[Page]:
    """An empty page, of a browser that nothing is known to yet."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,800")
        argv = ["chromium", *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        silent = subprocess.DEVNULL
        process = subprocess.Popen(argv, stdout=silent, stderr=silent, start_new_session=True)
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    found = [each for each in await answer.json() if each["type"] == "page"]
                async with session.ws_connect(found[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    yield Page(socket)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def _port(written: Path) -> str:
    while not written.exists() or "\n" not in written.read_text():
        await asyncio.sleep(0.1)
    return written.read_text().split()[0]


def test_the_overview_is_drawn_and_keys_lead_on() -> None:
    async def look(address: URL) -> None:
        async with asyncio.timeout(PATIENCE), browser() as page:
            await page.call("Network.enable")
            await page.call("Page.enable")
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=CATCH)
            await page.call("Page.navigate", url=str(address))
            seen = await page.until(lambda seen: "changed last" in seen["text"] and seen["shown"])
            for word in ("1 Overview", "8 Logs", "health", "interfaces", "backends", "denied most"):
                assert word in seen["text"]
            assert seen["drawn"] > 0
            await page.press("3")
            await page.until(lambda seen: "3 Top" in seen["text"] and "changed last" not in seen["text"])
            own = str(address.origin())
            (made,) = page.happened("Network.webSocketCreated")
            assert made["url"].startswith(own.replace("http", "ws"))
            # The key is in no address that stays, and nobody else was asked.
            (shown,) = [each["frame"]["url"] for each in page.happened("Page.frameNavigated")]
            assert shown == f"{own}/"
            loaded = [each["response"]["url"] for each in page.happened("Network.responseReceived")]
            assert len(loaded) > 2
            assert all(url.startswith((own, "data:")) for url in loaded), loaded

    with serving() as address:
        asyncio.run(look(address))


def test_without_the_key_there_is_no_window() -> None:
    async def look(address: URL) -> None:
        async with asyncio.timeout(PATIENCE), browser() as page:
            await page.call("Network.enable")
            await page.call("Page.enable")
            await page.call("Page.navigate", url=str(address.with_query(None)))
            while not page.happened("Page.loadEventFired"):
                await page.call("Page.enable")
                await asyncio.sleep(0.1)
            first, *_ = page.happened("Network.responseReceived")
            assert first["response"]["status"] == 403
            assert not page.happened("Network.webSocketCreated")

    with serving() as address:
        asyncio.run(look(address))
