"""docs/guides: every command in them is executed, in the order in which a reader would, between real hosts.

What begins with ```sh is typed on the appliance, ```sh client on the client's host; what is marked `refused`
has to fail. The first guide is what the others begin with.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig import Appliance, Host, Rig
from rig.servers import ROOT, start_echo, start_http

pytestmark = pytest.mark.requires(
    "root", "netns", "veth", "bpf", "bpffs", commands=["curl", "bash", "python3"]
)

GUIDES = ROOT / "docs" / "guides"
FIRST = "FIRST_GATEWAY.md"
_BLOCK = re.compile(r"^```sh( client)?( refused)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^```(.+)$", re.MULTILINE)
SERVERS = (("10.2.0.2", 80), ("10.2.0.2", 8080), ("10.2.0.2", 8081), ("10.2.0.3", 80))


@dataclass(frozen=True, slots=True)
class Block:
    """What is typed at once."""

    on_client: bool
    refused: bool
    text: str


def blocks(guide: str) -> list[Block]:
    text = (GUIDES / guide).read_text()
    return [Block(bool(client), bool(refused), body) for client, refused, body in _BLOCK.findall(text)]


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        for address, port in SERVERS:
            start_http(built.server, port, address)
        start_echo(built.server)
        yield built


@pytest.fixture
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name="guide") as built:
        yield built


class Shell:
    """Two terminals, on the appliance and on a client, in one folder; services are managed by hand."""

    def __init__(self, rig: Rig, appliance: Appliance, folder: Path) -> None:
        self._rig = rig
        self._appliance = appliance
        self._folder = folder
        programs = folder / "bin"
        programs.mkdir()
        command = shlex.join(appliance.command)
        for name, script in (
            ("marchproxy", f'exec {command} "$@"'),
            ("sudo", 'exec "$@"'),
            # There is no service manager in a namespace: what it is asked for, the test does.
            ("systemctl", f'echo "$@" >> {folder}/asked'),
        ):
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)

    def type(self, block: Block) -> None:
        """Run it; what has to work works, and what has to be refused is."""
        host: Host = self._rig.client if block.on_client else self._rig.middle
        env = self._appliance.env | {
            "PATH": f"{self._folder}/bin:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        script = f"set -eo pipefail; cd {shlex.quote(str(self._folder))}\n{block.text}"
        result = host.run(["bash", "-c", script], env=env, check=False, timeout=60)
        failed = result.returncode != 0
        assert failed == block.refused, f"{block.text}\n{result.stdout}{result.stderr}"
        asked = self._folder / "asked"
        if asked.exists():
            assert asked.read_text() == "start marchproxy\n"
            asked.unlink()
            self._appliance.start()


@pytest.mark.parametrize("guide", sorted(path.name for path in GUIDES.glob("*.md")))
def test_every_command_does_what_the_guide_says(
    rig: Rig, appliance: Appliance, tmp_path: Path, guide: str
) -> None:
    shell = Shell(rig, appliance, tmp_path)
    first = blocks(FIRST)
    if guide != FIRST:
        # As far as it is the setting of the others.
        started = next(at for at, block in enumerate(first) if "systemctl" in block.text)
        for block in first[: started + 1]:
            shell.type(block)
    for block in blocks(guide):
        shell.type(block)


def test_no_block_is_left_out() -> None:
    for path in GUIDES.glob("*.md"):
        fences = _FENCE.findall(path.read_text())
        assert len(fences) == len(blocks(path.name)), path.name
        assert set(fences) <= {"sh", "sh client", "sh client refused"}, path.name
