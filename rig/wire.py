"""A bad link: what goes through is lost, doubled, damaged, delayed and overtaken, or nothing goes through.

This kernel may lack netem, so a namespace stands in the link and a program there carries frame after frame
between two packet sockets. Run as a program it takes both interfaces and a file with the impairment as JSON,
which may be replaced at any time; an interface may go away and come back.
"""

import heapq
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rig.host import Host
from rig.network import Rig
from rig.offload import Offload, switch
from rig.servers import ROOT

ALL_PROTOCOLS = 0x0003
BUFFER = 8 << 20
LOOK = 0.05
"""Seconds between two looks at the file."""
_HEADER = 14
"""Bytes of Ethernet, which stay whole: a wrong link address is a lost frame."""


@dataclass(frozen=True, slots=True)
class Impairment:
    """Of each direction; shares of 1 and milliseconds."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Frames that wait for up to four milliseconds more."""
    delay: float = 0.0
    corruption: float = 0.0
    """Frames in which one bit is another."""
    seed: int = 1


class Wire:
    """What stands in a link of the middle."""

    def __init__(self, host: Host, rig: Rig, side: str, file: Path) -> None:
        """`host` is the namespace that it stands in, `side` the middle's interface."""
        self.host, self.side = host, side
        self._rig, self.file = rig, file

    def become(self, impairment: Impairment) -> None:
        """Do this to what goes through from now on, within `LOOK` seconds."""
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(asdict(impairment)))
        new.replace(self.file)

    @contextmanager
    def bad(self, impairment: Impairment) -> Iterator[None]:
        """For a while; perfect afterwards."""
        self.become(impairment)
        try:
            yield
        finally:
            self.become(Impairment())

    def tear(self) -> None:
        """Take the middle's interface away."""
        self._rig.middle.ip(f"link del {self.side}")

    def mend(self) -> None:
        """Give it back, with the addresses that the rig gave it."""
        v4, v6 = ("10.1.0", "fd01:") if self.side == "inside0" else ("10.2.0", "fd02:")
        self._rig.middle.ip(
            f"link add {self.side} type veth peer name near netns {self.host.name}",
            f"address add {v4}.1/24 dev {self.side}",
            f"address add {v6}:1/64 dev {self.side} nodad",
            f"link set {self.side} up",
        )
        self.settle()

    def settle(self) -> None:
        """What the near end needs each time it is made."""
        self.host.ip("link set near up")
        # A virtual link takes what XDP sends where its other end has GRO, which shall put nothing together.
        self.host.ip("link set near gro_max_size 1500")
        self.host.call(switch, "near", Offload.GRO, True)
        # Without checksums left to the device there is no segmentation left to it: frames are as on a wire.
        self._rig.middle.call(switch, self.side, Offload.CHECKSUM, False)


@contextmanager
def bad_link(rig: Rig, host: Host, impairment: Impairment) -> Iterator[Wire]:
    """Put a wire between `host`, which is the first client or server of the rig, and the middle."""
    side = "inside0" if host is rig.client else "outside0"
    wire = Host(f"{rig.name}-wire-{side}", rig.files)
    try:
        wire.sysctl({"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"})
        host.ip(f"link set eth0 netns {wire.name} name near")
        wire.ip(f"link add far type veth peer name eth0 netns {host.name}", "link set far up")
        v4, v6 = host.ipv4.rpartition(".")[0], host.ipv6.removesuffix("2")
        host.ip(
            f"address add {host.ipv4}/24 dev eth0",
            f"address add {host.ipv6}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {v4}.1",
            f"route add default via {v6}1",
        )
        made = Wire(wire, rig, side, rig.files / f"wire-{side}.json")
        made.settle()
        host.call(switch, "eth0", Offload.CHECKSUM, False)
        made.become(impairment)
        argv = [sys.executable, "-m", "rig.wire", "near", "far", str(made.file)]
        program = wire.popen(argv, env={"PYTHONPATH": str(ROOT)})
        program.expect("carrying")
        yield made
    finally:
        wire.close()


class _Carrier:
    """Both directions."""

    def __init__(self, names: tuple[str, str], file: Path) -> None:
        self._names = names
        self._file = file
        self._read: tuple[int, int] | None = None
        self._look()
        self._random = random.Random(self._impairment.seed)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._ends: list[socket.socket] = []

    def carry(self) -> None:
        """For ever; anew where an interface has gone, once both are there."""
        said = False
        while True:
            try:
                self._ends = [_open(name) for name in self._names]
                if not said:
                    print("carrying", flush=True)
                said = True
                self._carry()
            except OSError:
                time.sleep(LOOK)
            finally:
                for end in self._ends:
                    end.close()
                self._ends = []

    def _carry(self) -> None:
        poll = select.poll()
        for end in self._ends:
            poll.register(end, select.POLLIN)
        indexes, look = self._indexes(), 0.0
        while True:
            now = time.monotonic()
            if now >= look:
                look = now + LOOK
                self._look()
                if self._indexes() != indexes:
                    return
            pause = look - now
            if self._waiting:
                pause = max(0.0, min(pause, self._waiting[0][0] - now))
            # poll takes whole milliseconds, and would round a short pause down to none.
            ready = {fd for fd, _ in poll.poll(pause * 1000)}
            for index, end in enumerate(self._ends):
                if end.fileno() in ready:
                    self._take(index, end)
            self._let_go()

    def _indexes(self) -> list[int]:
        return [socket.if_nametoindex(name) for name in self._names]

    def _look(self) -> None:
        facts = os.stat(self._file)
        if (facts.st_ino, facts.st_mtime_ns) != self._read:
            self._read = facts.st_ino, facts.st_mtime_ns
            self._impairment = Impairment(**json.loads(self._file.read_text()))

    def _take(self, index: int, end: socket.socket) -> None:
        for _ in range(64):
            try:
                frame, origin = end.recvfrom(65536)
            except BlockingIOError:
                return
            if origin[2] != socket.PACKET_OUTGOING:
                self._impair(1 - index, frame)

    def _impair(self, target: int, frame: bytes) -> None:
        impairment, chance = self._impairment, self._random.random
        if chance() < impairment.loss:
            return
        copies = 2 if chance() < impairment.duplication else 1
        for _ in range(copies):
            late = impairment.delay / 1000
            if chance() < impairment.reordering:
                late += self._random.uniform(0, 0.004)
            if chance() < impairment.corruption:
                frame = self._damaged(frame)
            self._number += 1
            heapq.heappush(self._waiting, (time.monotonic() + late, self._number, target, frame))

    def _damaged(self, frame: bytes) -> bytes:
        """One bit is the other: what the checksums of IP, TCP and UDP always find."""
        damaged = bytearray(frame)
        at = self._random.randrange(_HEADER, len(frame))
        damaged[at] ^= 1 << self._random.randrange(8)
        return bytes(damaged)

    def _let_go(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, target, frame = heapq.heappop(self._waiting)
            try:
                self._ends[target].send(frame)
            except OSError:
                # The queue is full, or the link is going away: lost, as on any wire.
                return


def _open(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    sock.bind((name, 0))
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return sock


if __name__ == "__main__":
    _Carrier((sys.argv[1], sys.argv[2]), Path(sys.argv[3])).carry()
