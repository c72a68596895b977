"""Series of traffic in so many flows, through gateways that translate nothing and keep a table of flows.

Every packet is of a flow chosen at random, so that it finds what the table holds where it lies in memory.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.bed import HTTP, TOLERATED_FAILURES, Bed, Port, compiled
from benchmarks.contenders import Contender, Nftables, OurDaemon, Routing
from benchmarks.gateways import Gateway
from benchmarks.series.live import PATIENCE, Series, Stand
from rig import Appliance, RigError

FLOWS = (1, 1_000, 100_000, 1_000_000)
FIRST, NETWORK = "10.200.0.0", "10.200.0.0/16"
"""Addresses of the server beside its own."""
UDP = Port("conversations", "udp", 7100)
CONNTRACK_HOLDS = Path("/proc/sys/net/netfilter/nf_conntrack_max")
"""The machine's: a namespace cannot have more."""


class FlowsMarchProxy(Gateway, OurDaemon):
    """With a table for a million flows."""

    name: ClassVar[str] = "marchproxy-flows"
    title: ClassVar[str] = "MarchProxy gateway"
    patience = PATIENCE

    def __init__(self, bed: Bed) -> None:
        """Write its configuration."""
        super().__init__(bed)
        self.appliance = Appliance(bed.rig, name=self.name)
        cli = self.appliance.cli
        cli("init")
        for interface, role in (("inside0", "inside"), ("outside0", "outside")):
            cli("interface", "add", interface, "--role", role, "--mode", "tc")
        cli("appliance", "set", "--flow-table", str(2 * max(FLOWS) + 65_536))
        cli("service", "add", "clients", "--address", "10.1.0.0/24")
        for name, address, port in (("server", self.server, HTTP), ("many", NETWORK, UDP)):
            cli("service", "add", name, "--address", address)
            what = ("--protocol", port.transport, "--ports", str(port.number))
            cli("mapping", "add", name, "--from", "clients", "--to", name, *what)


class FlowsNftables(Gateway, Nftables):
    """With conntrack first, and the same policy."""

    name: ClassVar[str] = "nftables-flows"
    title: ClassVar[str] = "nftables gateway"

    def _rules(self) -> str:
        return f"""
            table ip bench {{
                chain through {{ type filter hook forward priority filter; policy drop;
                    ct state established,related accept
                    ip saddr 10.1.0.0/24 ip daddr {self.server} tcp dport {HTTP.number} accept
                    ip saddr 10.1.0.0/24 ip daddr {NETWORK} udp dport {UDP.number} accept
                }}
            }}
        """


def most(contender: Contender) -> int:
    """Flows that it can hold here."""
    return int(CONNTRACK_HOLDS.read_text()) if isinstance(contender, Nftables) else max(FLOWS)


def with_flows(bed: Bed) -> Sequence[Stand]:
    """Each contender with an empty table at every number that it can hold; all forget after three minutes."""
    bed.rig.server.ip(f"route add local {NETWORK} dev lo")
    bed.rig.middle.ip(f"route add {NETWORK} via {bed.rig.server.ipv4}")
    bed.rig.middle.sysctl(
        {f"net.netfilter.nf_conntrack_udp_timeout{kind}": "180" for kind in ("", "_stream")}
    )
    bed.rig.server.popen([compiled("conversations"), "serve", str(UDP.number)]).expect("ready")
    contenders = [Routing(bed), FlowsMarchProxy(bed), FlowsNftables(bed)]
    return [Stand(each, (step,)) for step in FLOWS for each in contenders if step <= most(each)]


def opened(bed: Bed, step: int) -> None:
    """Have so many flows in the table; `RigError` where too many of them are not."""
    _talk(bed, "open", str(step), timeout=2 * PATIENCE)


def asked(bed: Bed, _target: str, step: int, seconds: float) -> float:
    """Datagrams a second, both ways together."""
    said = _talk(bed, "ask", str(step), f"{seconds:g}", timeout=seconds + 10)
    return float(2 * said["answers"] / said["seconds"])


def _talk(bed: Bed, mode: str, *shape: str, timeout: float) -> Any:
    argv = [compiled("conversations"), mode, FIRST, str(UDP.number), *shape]
    said = json.loads(bed.rig.client.run(argv, timeout=timeout).stdout)
    if said["lost"] > TOLERATED_FAILURES * said["answers"]:
        raise RigError(f"{said['lost']} datagrams were lost, {said['answers']} answered")
    return said


SERIES = (
    Series(
        *("flow-traffic", "UDP datagrams of 64 bytes, each in any of the flows", "flows", "k/s", 1e3),
        *("µs/packet", 1e6, with_flows, asked, opened),
    ),
)
