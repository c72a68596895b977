"""Pages of docs/ whose commands are executed.

What begins with ```sh is typed on the appliance, ```sh client on the client's host; what is marked `refused`
has to fail.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rig import Appliance, Host, Rig
from rig.servers import ROOT, start_echo, start_http

DOCS = ROOT / "docs"
GUIDES = DOCS / "guides"
FIRST = GUIDES / "FIRST_GATEWAY.md"
FENCES = frozenset({"sh", "sh client", "sh client refused"})
_BLOCK = re.compile(r"^```sh( client)?( refused)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```(.+)$", re.MULTILINE)
_SERVERS = (("10.2.0.2", 80), ("10.2.0.2", 8080), ("10.2.0.2", 8081), ("10.2.0.3", 80))


@dataclass(frozen=True, slots=True)
class Block:
    """What is typed at once."""

    on_client: bool
    refused: bool
    text: str


def blocks(page: Path) -> list[Block]:
    """All of a page's, in its order."""
    found = _BLOCK.findall(page.read_text())
    return [Block(bool(client), bool(refused), body) for client, refused, body in found]


def fences(page: Path) -> list[str]:
    """What blocks of a page begin with, of whatever kind they are."""
    return _FENCE.findall(page.read_text())


@contextmanager
def hosts() -> Iterator[Rig]:
    """Those that the pages speak of, with servers."""
    with Rig() as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        for address, port in _SERVERS:
            start_http(built.server, port, address)
        start_echo(built.server)
        yield built


class Shell:
    """Two terminals, on the appliance and on a client, in one folder; services are managed by hand."""

    def __init__(self, rig: Rig, appliance: Appliance, folder: Path) -> None:
        self.folder = folder
        self._rig = rig
        self._appliance = appliance
        (folder / "bin").mkdir()
        self.provide("marchproxy", f'exec {shlex.join(appliance.command)} "$@"')
        self.provide("sudo", 'exec "$@"')
        # There is no service manager in a namespace: what it is asked for, the test does.
        self.provide("systemctl", f'echo "$@" >> {folder}/asked')

    def provide(self, name: str, script: str) -> None:
        """A program that stands in for one that is not here."""
        program = self.folder / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def run(self, text: str, *, on_client: bool = False) -> subprocess.CompletedProcess[str]:
        """What one of the terminals makes of it."""
        host: Host = self._rig.client if on_client else self._rig.middle
        path = f"{self.folder}/bin:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        script = f"set -eo pipefail; cd {shlex.quote(str(self.folder))}\n{text}"
        env = self._appliance.env | {"PATH": path}
        return host.run(["bash", "-c", script], env=env, check=False, timeout=200)

    def type(self, block: Block) -> None:
        """Run it; what has to work works, and what has to be refused is."""
        result = self.run(block.text, on_client=block.on_client)
        failed = result.returncode != 0
        assert failed == block.refused, f"{block.text}\n{result.stdout}{result.stderr}"
        asked = self.folder / "asked"
        if asked.exists():
            assert asked.read_text() == "start marchproxy\n"
            asked.unlink()
            self._appliance.start()

    def follow(self, some: Sequence[Block]) -> None:
        """Type one after the other."""
        for block in some:
            self.type(block)


def setting() -> list[Block]:
    """The first guide, as far as it is what other pages begin with: until the appliance runs."""
    first = blocks(FIRST)
    started = next(at for at, block in enumerate(first) if "systemctl" in block.text)
    return first[: started + 1]
