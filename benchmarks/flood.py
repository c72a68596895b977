"""New flows by the hundred thousand between the hosts of a rig: `flood.c`, and how many there were."""

import json
import time
from dataclasses import dataclass

from benchmarks.bed import compiled
from rig import Appliance, Rig
from rig.waiting import wait_for

FIRST, PORTS = 9000, 32
"""Where the server answers. From 60,000 ports each, that is nearly two million flows."""
_ANSWERS = f"""
table inet answers {{
  counter got {{ packets 0 bytes 0 }}
  chain input {{
    type filter hook input priority 0;
    udp sport {FIRST}-{FIRST + PORTS - 1} counter name "got"
  }}
  chain output {{
    type filter hook output priority 0;
    icmp type destination-unreachable drop
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one flood was."""

    made: int
    """Flows: each was answered once."""
    seconds: float
    """Until the last datagram was sent."""


class Flood:
    """A server that answers at many ports, and a client at none of whose ports anybody listens."""

    def __init__(self, rig: Rig) -> None:
        """Start the server, and have the client's host count answers."""
        self.rig = rig
        words = [compiled("flood"), "serve", rig.server.ipv4, str(FIRST), str(PORTS)]
        rig.server.popen(words).expect("ready")
        rig.client.run(["nft", "-f", "-"], stdin=_ANSWERS)

    def ask(self, flows: int, rate: int = 0) -> Asked:
        """Open that many flows that there were not yet, `rate` a second; 0: as fast as it goes."""
        before = self.answered()
        ends = [self.rig.client.ipv4, self.rig.server.ipv4]
        words = [*ends, str(FIRST), str(PORTS), str(flows), str(rate)]
        said = self.rig.client.run([compiled("flood"), "ask", *words], timeout=120).stdout
        last = wait_for(self._quiet, "the last answers", timeout=20)
        return Asked(last - before, float(json.loads(said)["seconds"]))

    def answered(self) -> int:
        """Answers that the appliance has passed on so far: those that came, and what its link dropped."""
        shown = self.rig.client.run(["nft", "-j", "list", "counter", "inet", "answers", "got"]).stdout
        link = self.rig.middle.run(["ip", "-json", "-statistics", "link", "show", "inside0"]).stdout
        dropped = int(json.loads(link)[0]["stats64"]["tx"]["dropped"])
        return dropped + int(json.loads(shown)["nftables"][-1]["counter"]["packets"])

    def _quiet(self) -> int | None:
        before = self.answered()
        time.sleep(0.3)
        return before if before and self.answered() == before else None


def gateway(rig: Rig, name: str) -> Appliance:
    """An appliance that lets the client through; it does not run yet."""
    made = Appliance(rig, name=name)
    made.cli("init")
    for interface, role in (("inside0", "inside"), ("outside0", "outside")):
        made.cli("interface", "add", interface, "--role", role)
    made.cli("service", "add", "lan", "--address", "10.1.0.0/24")
    made.cli("service", "add", "far", "--address", rig.server.ipv4)
    made.cli("mapping", "add", "out", "--from", "lan", "--to", "far", "--protocol", "tcp,udp")
    return made
