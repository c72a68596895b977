"""The layout: clients on the left, the appliance's host in the middle, servers on the right.

    client  eth0 ───── inside0  middle  outside0 ───── eth0  server
        10.1.0.2       10.1.0.1         10.2.0.1       10.2.0.2
         fd01::2        fd01::1          fd02::1        fd02::2

Every client and server has a link of its own. The second one's is `inside1` or `outside1`, with 1 as the
third number (10.1.1.2, fd01:0:0:1::2), and so on. All of them route by default through the middle: plain
routing is one `forward()` away.
"""

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from rig.host import Host
from rig.lifecycle import close_at_exit, remove_tree, sweep, unique_name
from rig.offload import Offload, switch
from rig.waiting import RigError

QUEUES = os.cpu_count() or 1
"""Queues per link: with one, a virtual link is carried by a single processor."""

LISTEN4 = "10.1.0.1"
LISTEN6 = "fd01::1"
"""The middle's addresses on its first client's link, where services are listened for."""


class Rig:
    """Namespaces and links, for as long as the `with` block lasts."""

    def __init__(self, *, clients: int = 1, servers: int = 1) -> None:
        """Build it. `RigError` without root; leftovers of dead processes are removed first."""
        if os.geteuid() != 0:
            raise RigError("network namespaces need root", hint="run it again with sudo")
        sweep()
        self.name = unique_name()
        self.files = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        """Logs and configuration of whatever runs here; removed with the rig."""
        self._hosts: list[Host] = []
        self._behind = 0
        close_at_exit(self)
        try:
            self.middle = self._host("appliance")
            self.clients = tuple(self._attach("client", "inside", 1, i) for i in range(clients))
            self.servers = tuple(self._attach("server", "outside", 2, i) for i in range(servers))
        except BaseException:
            self.close()
            raise

    @property
    def client(self) -> Host:
        """The first client."""
        return self.clients[0]

    @property
    def server(self) -> Host:
        """The first server."""
        return self.servers[0]

    def forward(self, on: bool = True) -> None:
        """Switch plain routing through the middle on or off, IPv4 and IPv6."""
        value = "1" if on else "0"
        self.middle.sysctl({"net.ipv4.ip_forward": value, "net.ipv6.conf.all.forwarding": value})

    def behind(self, router: Host, *, mtu: int = 1500) -> Host:
        """A host behind a server, which becomes its router: 10.3.0.2 and fd03::2, by a link of that MTU.

        The middle knows the server as the way there.
        """
        index = self._behind
        self._behind += 1
        host = self._host(f"far{index + 1}")
        v4, v6, near = f"10.3.{index}", _network6(3, index), f"far{index}"
        router.ip(
            f"link add {near} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {host.name}",
            f"address add {v4}.1/24 dev {near}",
            f"address add {v6}:1/64 dev {near} nodad",
            f"link set {near} up",
        )
        router.sysctl({"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
        self._settle(host, v4, v6)
        self.middle.ip(f"route add {v4}.0/24 via {router.ipv4}", f"route add {v6}:/64 via {router.ipv6}")
        return host

    def suit_xdp(self, on: bool = True) -> None:
        """Have the far ends of all links work with native XDP in the middle, or as usual again.

        On a virtual link an XDP frame is one segment with its checksum complete, and only a device with GRO
        takes it. Real network cards need none of this.
        """
        for host in (*self.clients, *self.servers):
            host.call(switch, "eth0", Offload.GRO, on)
            host.call(switch, "eth0", Offload.CHECKSUM, not on)

    def close(self) -> None:
        """Take everything away. May be called twice."""
        while self._hosts:
            self._hosts.pop().close()
        remove_tree(self.files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _host(self, role: str) -> Host:
        host = Host(f"{self.name}-{role}", self.files)
        self._hosts.append(host)
        return host

    def _attach(self, role: str, side: str, number: int, index: int) -> Host:
        """A host with one link, `eth0` there and `inside0` or `outside0` (and so on) in the middle."""
        host = self._host(role if index == 0 else f"{role}{index + 1}")
        near, queues = f"{side}{index}", f"numtxqueues {QUEUES} numrxqueues {QUEUES}"
        v4 = f"10.{number}.{index}"
        v6 = _network6(number, index)
        self.middle.ip(
            f"link add {near} {queues} type veth peer name eth0 netns {host.name} {queues}",
            f"address add {v4}.1/24 dev {near}",
            f"address add {v6}:1/64 dev {near} nodad",
            f"link set {near} up",
        )
        self._settle(host, v4, v6)
        return host

    def _settle(self, host: Host, v4: str, v6: str) -> None:
        """Give a host its addresses, .2 and ::2 of these networks, and its way out."""
        host.ip(
            f"address add {v4}.2/24 dev eth0",
            f"address add {v6}:2/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {v4}.1",
            f"route add default via {v6}:1",
        )
        host.ipv4, host.ipv6 = f"{v4}.2", f"{v6}:2"


def _network6(number: int, index: int) -> str:
    """Of a link, without the colon before a host's number."""
    return f"fd0{number}:" if index == 0 else f"fd0{number}:0:0:{index}:"
