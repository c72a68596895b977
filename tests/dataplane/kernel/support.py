"""A wire to send test frames over, and waiting for what they do."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.dataplane.loops import PATIENCE

TEST_ETHERTYPE = bytes.fromhex("88b5")
"""IEEE 802 local experimental: nothing else on a link uses it, and the test programs count nothing else."""
FRAME = b"\xff" * 6 + bytes.fromhex("020000000001") + TEST_ETHERTYPE + bytes(range(46))
"""A broadcast of the shortest length on a wire."""

type Compile = Callable[[Path], Path]
"""From C source to object file."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A veth pair in the namespace of the calling thread: what is sent on `far` arrives at `near`."""

    near: str = "near0"
    far: str = "far0"

    @property
    def ifindex(self) -> int:
        """Of `near`."""
        return socket.if_nametoindex(self.near)

    def send(self) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind((self.far, 0))
            sender.send(FRAME)

    def lay(self) -> None:
        ip("link", "add", self.near, "type", "veth", "peer", "name", self.far)
        ip("link", "set", self.near, "up")
        ip("link", "set", self.far, "up")

    def cut(self) -> None:
        ip("link", "delete", self.near)


NEEDED = (1 << 12) | (1 << 38) | (1 << 39)
"""CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF: all that the appliance asks for."""

_GIVE_UP = """
import ctypes
low, high = {keep} & 0xFFFFFFFF, {keep} >> 32
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
assert ctypes.CDLL(None).capset(header, sets) == 0
"""


def run_with_capabilities(program: str, *arguments: str | Path, keep: int = 0) -> str:
    """What a Python program prints that has no capabilities but `keep`."""
    command = [sys.executable, "-c", _GIVE_UP.format(keep=keep) + program, *arguments]
    root = Path(__file__).parents[3]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root).stdout


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether `condition` comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
