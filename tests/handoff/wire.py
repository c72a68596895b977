"""A bad link: what goes through is lost, doubled, delayed and overtaken.

This kernel may lack netem, so a namespace stands in the link and a program there carries frame after frame
between two packet sockets. Run as a program it takes the two interfaces and the impairment as JSON.
"""

import heapq
import json
import random
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rig import Host, Rig
from rig.offload import Offload, switch
from rig.servers import ROOT

ALL_PROTOCOLS = 0x0003
BUFFER = 8 << 20


@dataclass(frozen=True, slots=True)
class Impairment:
    """Of each direction; shares of 1 and milliseconds."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Frames that wait for up to four milliseconds more."""
    delay: float = 0.0
    seed: int = 1


@contextmanager
def bad_link(rig: Rig, host: Host, impairment: Impairment) -> Iterator[None]:
    """Put a wire between `host`, which is a client or a server of the rig, and the middle."""
    side = "inside0" if host is rig.client else "outside0"
    wire = Host(f"{rig.name}-wire-{side}", rig.files)
    try:
        wire.sysctl({"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"})
        host.ip(f"link set eth0 netns {wire.name} name near")
        wire.ip(
            "link set near up",
            f"link add far type veth peer name eth0 netns {host.name}",
            "link set far up",
        )
        v4, v6 = host.ipv4.rpartition(".")[0], host.ipv6.removesuffix("2")
        host.ip(
            f"address add {host.ipv4}/24 dev eth0",
            f"address add {host.ipv6}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {v4}.1",
            f"route add default via {v6}1",
        )
        # A virtual link takes what XDP sends where its other end has GRO, which shall put nothing together.
        wire.ip("link set near gro_max_size 1500")
        wire.call(switch, "near", Offload.GRO, True)
        # Without checksums left to the device there is no segmentation left to it: frames are as on a wire.
        host.call(switch, "eth0", Offload.CHECKSUM, False)
        rig.middle.call(switch, side, Offload.CHECKSUM, False)
        argv = [sys.executable, "-m", "tests.handoff.wire", "near", "far", json.dumps(asdict(impairment))]
        program = wire.popen(argv, env={"PYTHONPATH": str(ROOT)})
        program.expect("carrying")
        yield
    finally:
        wire.close()


class _Wire:
    """Both directions."""

    def __init__(self, names: tuple[str, str], impairment: Impairment) -> None:
        self._ends = tuple(_open(name) for name in names)
        self._impairment = impairment
        self._random = random.Random(impairment.seed)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._number = 0

    def carry(self) -> None:
        """For ever."""
        poll = select.poll()
        for end in self._ends:
            poll.register(end, select.POLLIN)
        while True:
            pause = None
            if self._waiting:
                pause = max(0.0, self._waiting[0][0] - time.monotonic()) * 1000
            # poll takes whole milliseconds, and would round a short pause down to none.
            ready = {fd for fd, _ in poll.poll(pause)}
            for index, end in enumerate(self._ends):
                if end.fileno() in ready:
                    self._take(index, end)
            self._let_go()

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
            self._number += 1
            heapq.heappush(self._waiting, (time.monotonic() + late, self._number, target, frame))

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
    wire = _Wire((sys.argv[1], sys.argv[2]), Impairment(**json.loads(sys.argv[3])))
    print("carrying", flush=True)
    wire.carry()
