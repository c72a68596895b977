"""`make screenshots`: the terminal front end, looking at an appliance at work; into docs/screenshots/.

A real daemon between real hosts. Only the terminal is none: Textual draws into a file instead.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from textual.pilot import Pilot

from demo.actors import Actor, Open, Step, ask, browse, chat
from marchproxy.client.appliance import Appliance as Client
from marchproxy.model.errors import MarchproxyError
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.link import Link
from rig import Appliance, Rig
from rig.servers import start_echo, start_http
from rig.traffic import fetch

FOLDER = Path(__file__).parent.parent / "docs" / "screenshots"
SIZE = (110, 32)
CURVES = 40.0
"""Seconds of traffic before the first picture: curves need something to show."""
SETTLING = 3.0
"""Seconds that a tab gets to ask, and to ask again for rates."""
TABS = ("overview", "flows", "top", "denials", "policy", "protection", "events", "logs")
LISTEN = "10.1.0.1"
_FONT = re.compile(r"\s*@font-face\s*\{[^}]*\}")
"""Textual's pictures load their font from somebody else's server. A browser has one that will do."""
_UNIQUE = re.compile(r"terminal-\d+-")

SERVICES: tuple[tuple[str, ...], ...] = (
    ("office", "--address", "10.1.0.0/24"),
    ("guests", "--address", "10.1.1.0/24"),
    ("shop", "--address", "10.2.0.2,10.2.1.2", "--port", "80", "--health", "http:/"),
    ("resolver", "--address", "10.2.0.2", "--port", "7"),
    ("ledger", "--address", "10.2.1.2", "--port", "7", "--health", "tcp"),
    ("archive", "--address", "10.2.1.2", "--port", "81", "--health", "tcp"),
)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("shop", "--from", "office,guests", "--to", "shop", "--listen", "*:80", "--description", "the web shop"),
    ("archive", "--from", "office", "--to", "archive", "--listen", f"{LISTEN}:8080"),
    ("ledger", "--from", "office", "--to", "ledger", "--ports", "7", "--description", "book-keeping"),
    ("resolver", "--from", "office,guests", "--to", "resolver", "--protocol", "udp", "--ports", "7"),
    ("guests-stay-out", "--from", "guests", "--to", "ledger", "--ports", "7", "--action", "deny"),
)


def refused(address: str, port: int) -> Open:
    """Something that has to be refused."""

    def step() -> None:
        with suppress(OSError):
            fetch(address, port)

    def opened(_: ExitStack) -> Step:
        return step

    return opened


@contextmanager
def standing() -> Iterator[Appliance]:
    """An appliance with clients that keep it busy."""
    with ExitStack() as stack:
        rig = stack.enter_context(Rig(clients=2, servers=2))
        for server in rig.servers:
            start_http(server)
            start_echo(server)
        appliance = stack.enter_context(Appliance(rig, name="gateway"))
        define(appliance)
        appliance.start()
        office, guests = rig.clients
        doing = (
            *((office, browse(LISTEN)) for _ in range(3)),
            (office, chat("10.2.1.2")),
            (office, ask("10.2.0.2")),
            (office, refused("10.2.0.2", 22)),
            (guests, browse("10.1.1.1")),
            (guests, ask("10.2.0.2")),
            (guests, refused("10.2.1.2", 7)),
        )
        for number, (host, what) in enumerate(doing):
            stack.enter_context(Actor(host, f"client {number}", what))
        yield appliance


def define(appliance: Appliance) -> None:
    """What the pictures show."""
    cli = appliance.cli
    cli("init")
    for name in ("inside0", "inside1", "outside0", "outside1"):
        cli("interface", "add", name, "--role", name.rstrip("01"))
    for words in SERVICES:
        cli("service", "add", *words)
    for words in MAPPINGS:
        protocol = () if "--protocol" in words else ("--protocol", "tcp")
        cli("mapping", "add", *words, *protocol)
    cli("block", "add", "198.51.100.0/24", "--reason", "scans the whole network")
    cli("block", "add", "203.0.113.7", "--reason", "spam", "--ttl", "7d")
    cli("limit", "add", "--name", "per-client", "--per", "source", "--packets-per-second", "5000")


async def draw(appliance: Appliance, folder: Path) -> None:
    """Look at each tab, and keep what is seen."""
    client = Client(appliance.env)
    app = MarchProxyApp(Link(client))
    async with app.run_test(size=SIZE) as pilot:
        await wait(pilot, CURVES)
        for number, tab in enumerate(TABS, start=1):
            await pilot.press(str(number))
            await wait(pilot, SETTLING)
            keep(app, folder / f"{tab}.svg")
        await pilot.press("4")
        await wait(pilot, SETTLING)
        await pilot.press("w")
        await wait(pilot, SETTLING)
        keep(app, folder / "why.svg")


async def wait(pilot: Pilot[None], seconds: float) -> None:
    """Let it run."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await pilot.pause(0.1)


def keep(app: MarchProxyApp, path: Path) -> None:
    """The screen as a picture that says the same where it looks the same."""
    picture = _UNIQUE.sub("t-", _FONT.sub("", app.export_screenshot(title="marchproxy tui")))
    path.write_text("\n".join(line.rstrip() for line in picture.strip().splitlines()) + "\n")
    print(f"{path.relative_to(FOLDER.parent.parent)}: {path.stat().st_size / 1000:.0f} kB")


def main() -> int:
    """Exit code 1 where it could not be done."""
    if os.geteuid() != 0:
        print("it builds network namespaces, which needs root: sudo make screenshots", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    try:
        with standing() as appliance:
            asyncio.run(draw(appliance, FOLDER))
    except MarchproxyError as error:
        print(f"{error.message}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
