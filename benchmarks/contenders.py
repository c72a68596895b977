"""Who is measured: plain routing, nftables, and MarchProxy itself. The proxies are in `proxies`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from benchmarks.bed import PORTS, Bed, Transport
from rig import Appliance
from rig.host import checked
from rig.network import LISTEN4
from rig.waiting import wait_for


class Contender(ABC):
    """A way from client to server. One stands between them at a time."""

    name: ClassVar[str]
    title: ClassVar[str]
    carries_udp: ClassVar[bool] = True
    patience: ClassVar[float] = 10.0
    """Seconds until it has to serve, and until traffic has to pass."""

    def __init__(self, bed: Bed) -> None:
        """Prepare what only needs preparing once."""
        self.bed = bed
        self.server = bed.rig.server.ipv4

    @property
    def target(self) -> str:
        """The address that clients use."""
        return LISTEN4

    @abstractmethod
    def version(self) -> str:
        """What exactly is measured, for the record."""

    @abstractmethod
    @contextmanager
    def standing(self) -> Iterator[None]:
        """In the way for as long as the `with` block lasts; the middle host is clean before and after."""

    def carries(self, transport: Transport) -> bool:
        """Whether it can do this at all."""
        return transport == "tcp" or self.carries_udp

    def wait_ready(self) -> None:
        """Wait until traffic passes."""
        wait_for(self.reached, f"{self.title} to carry HTTP", timeout=self.patience)

    def reached(self) -> bool:
        """Whether HTTP gets through."""
        return self.bed.answers(self.target)


class Routing(Contender):
    """The kernel's own forwarding, with nothing in between: what all others are compared with."""

    name = "routing"
    title = "plain routing"

    @property
    def target(self) -> str:
        """The server itself."""
        return self.server

    def version(self) -> str:
        return "the kernel"

    @contextmanager
    def standing(self) -> Iterator[None]:
        self.bed.rig.forward()
        try:
            yield
        finally:
            self.bed.rig.forward(False)


class Nftables(Contender):
    """NAT by netfilter, both ways as the others do it: a new destination, and the appliance as source."""

    name = "nftables"
    title = "nftables NAT"

    def version(self) -> str:
        return checked(["nft", "--version"]).stdout.strip()

    @contextmanager
    def standing(self) -> Iterator[None]:
        middle = self.bed.rig.middle
        self.bed.rig.forward()
        middle.run(["nft", "-f", "-"], stdin=self._rules())
        try:
            yield
        finally:
            middle.run(["nft", "flush", "ruleset"])
            self.bed.rig.forward(False)

    def _rules(self) -> str:
        redirections = "\n".join(
            f"ip daddr {LISTEN4} {port.transport} dport {port.number} dnat to {self.server}" for port in PORTS
        )
        return f"""
            table ip bench {{
                chain in {{ type nat hook prerouting priority dstnat; {redirections}
                }}
                chain out {{ type nat hook postrouting priority srcnat; oifname "outside0" masquerade; }}
            }}
        """


class OurDaemon(Contender):
    """The real daemon; whoever derives from this configures `appliance`."""

    appliance: Appliance

    def version(self) -> str:
        return self.appliance.cli("version").stdout.strip()

    @contextmanager
    def standing(self) -> Iterator[None]:
        self.appliance.spawn()
        try:
            self.appliance.wait_ready(self.patience)
            yield
        finally:
            self.appliance.detach()


class MarchProxy(OurDaemon):
    """Configured by the real commands."""

    mode: ClassVar[str] = "tc"
    name = "marchproxy-tc"
    title = "MarchProxy TC"

    def __init__(self, bed: Bed) -> None:
        """Write its configuration."""
        super().__init__(bed)
        self.appliance = Appliance(bed.rig, name=self.name)
        cli = self.appliance.cli
        cli("init")
        for interface, role in (("inside0", "inside"), ("outside0", "outside")):
            cli("interface", "add", interface, "--role", role, "--mode", self.mode)
        cli("service", "add", "clients", "--address", "10.1.0.0/24")
        cli("service", "add", "server", "--address", self.server)
        for port in PORTS:
            between = ("--from", "clients", "--to", "server", "--protocol", port.transport)
            where = ("--ports", str(port.number), "--listen", f"{LISTEN4}:{port.number}")
            cli("mapping", "add", port.name, *between, *where)


class MarchProxyXDP(MarchProxy):
    """The same with native XDP, which on virtual links loses segmentation offload (`Rig.suit_xdp`)."""

    mode = "xdp"
    name = "marchproxy-xdp"
    title = "MarchProxy XDP"

    @contextmanager
    def standing(self) -> Iterator[None]:
        self.bed.rig.suit_xdp()
        try:
            with super().standing():
                yield
        finally:
            self.bed.rig.suit_xdp(False)
