"""A browser: a page with assets by HTTP/2, and a WebSocket under TLS, through a listener that reads HTTP."""

import asyncio
import json
import os
import signal
import subprocess
import tempfile
from typing import Any

import pytest
import uvloop
from aiohttp import WSMsgType, web

from marchproxy.dataplane.credentials.contexts import Contexts
from tests.certificates import identity
from tests.dataplane.admission.desk import desk
from tests.dataplane.http.site import LAN
from tests.policy import build
from tests.policy.build import mapping, service

pytestmark = pytest.mark.requires(commands=["chromium"])

ASSETS = 24
PATIENCE = 120
"""Seconds for a browser to start on a machine that is busy with something else."""
PAGE = """<!doctype html><title>page</title><link rel=stylesheet href=/asset/0.css>
%s
<script>
addEventListener("load", () => {
  const socket = new WebSocket(`wss://${location.host}/socket`);
  socket.onopen = () => socket.send("ping me");
  socket.onmessage = (message) => fetch("/done", {method: "POST", body: JSON.stringify({
    said: message.data,
    loaded: [...document.images].filter((each) => each.naturalWidth === 1).length,
    spoken: performance.getEntriesByType("resource").map((each) => each.nextHopProtocol),
    page: performance.getEntriesByType("navigation")[0].nextHopProtocol,
  })});
});
</script>"""
PIXEL = bytes.fromhex(
    "47494638396101000100800000000000ffffff2c00000000010001000002024401003b",
)
"""A GIF of one."""


class Site:
    """What the browser asks, and what it has told."""

    def __init__(self) -> None:
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked: list[web.BaseRequest] = []
        self.app = web.Application()
        self.app.router.add_get("/socket", self._socket)
        self.app.router.add_get("/asset/{name}", self._asset)
        self.app.router.add_post("/done", self._done)
        self.app.router.add_get("/", self._page)

    async def _page(self, request: web.Request) -> web.Response:
        images = "".join(f"<img src=/asset/{number}.gif>" for number in range(1, ASSETS + 1))
        return web.Response(text=PAGE % images, content_type="text/html")

    async def _asset(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if request.match_info["name"].endswith(".css"):
            return web.Response(text="body { color: black }", content_type="text/css")
        return web.Response(body=PIXEL, content_type="image/gif")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"{message.data}: {request.headers['x-forwarded-proto']}")
        return socket

    async def _done(self, request: web.Request) -> web.Response:
        if not self.told.done():
            self.told.set_result(json.loads(await request.text()))
        return web.Response()


async def _browse() -> tuple[Any, int]:
    """What the browser has told, and how many connections it made."""
    contexts = Contexts()
    contexts.learn([identity("proxy", "proxy.example")])
    site = Site()
    runner = web.AppRunner(site.app)
    await runner.setup()
    backend = web.TCPSite(runner, "127.0.0.2", 0)
    await backend.start()
    [(_, port)] = [address[:2] for address in runner.addresses]
    async with desk(contexts=contexts) as at:
        made = mapping("www", "lan", "web", f"127.0.0.1:{at.port}", "https", tls="proxy")
        at.apply(build.plan(LAN, service("web", "127.0.0.2", port=port), made))
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors")
            where = "--host-resolver-rules=MAP proxy.example 127.0.0.1"
            url = f"https://proxy.example:{at.port}/"
            argv = ["chromium", *flags, where, f"--user-data-dir={profile}", url]
            silent = subprocess.DEVNULL
            browser = subprocess.Popen(argv, stdout=silent, stderr=silent, start_new_session=True)
            try:
                async with asyncio.timeout(PATIENCE):
                    told = await site.told
                clients = {
                    event.decision.source_port
                    for event in at.events
                    if event.exchanged and event.exchanged.status
                }
            finally:
                os.killpg(browser.pid, signal.SIGKILL)
                browser.wait()
    await runner.cleanup()
    assert len(site.asked) == ASSETS + 1
    return told, len(clients)


def test_a_page_with_assets_and_a_websocket() -> None:
    told, clients = asyncio.run(_browse(), loop_factory=uvloop.new_event_loop)
    assert told["loaded"] == ASSETS
    assert told["page"] == "h2"
    assert set(told["spoken"]) == {"h2"}
    assert told["said"] == "ping me: https"
    assert clients == 1
