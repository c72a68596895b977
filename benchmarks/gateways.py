"""Who is measured as a gateway: clients address the server itself, and what no rule allows is dropped.

Both carry out the same policy: `RULES` pairs of networks and ports that nobody here uses, and those that the
workloads use. Both masquerade.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any, ClassVar

from benchmarks.bed import PORTS, Bed
from benchmarks.contenders import Contender, Nftables, OurDaemon
from rig import Appliance

RULES = 1_000
_CLIENTS, _SERVERS = ip_network("10.64.0.0/11"), ip_network("10.128.0.0/11")


def pairs() -> Iterator[tuple[str, str, int]]:
    """Networks of clients and servers, and a port."""
    for number in range(RULES):
        ends = (network.network_address + 256 * number for network in (_CLIENTS, _SERVERS))
        client, server = (f"{end}/28" for end in ends)
        yield client, server, 1000 + number % 100


class Gateway(Contender):
    """Stands in the way to the server."""

    @property
    def target(self) -> str:
        """The server itself."""
        return self.server


class MarchProxyGateway(Gateway, OurDaemon):
    """With mappings that have no listen address."""

    name: ClassVar[str] = "marchproxy-gateway"
    title: ClassVar[str] = "MarchProxy gateway"

    def __init__(self, bed: Bed) -> None:
        """Write its configuration."""
        super().__init__(bed)
        self.appliance = Appliance(bed.rig, name=self.name)
        self.appliance.cli("init")
        self.appliance.configure(self._configuration())

    def _configuration(self) -> dict[str, Any]:
        services = [
            {"name": "clients", "addresses": ["10.1.0.0/24"]},
            {"name": "server", "addresses": [self.server]},
        ]
        mappings = [
            {
                "name": f"bench-{protocol}",
                "sources": ["clients"],
                "destinations": ["server"],
                "protocols": [protocol],
                "ports": ",".join(str(port.number) for port in PORTS if port.transport == protocol),
            }
            for protocol in ("tcp", "udp")
        ]
        for number, (client, server, port) in enumerate(pairs()):
            services += [
                {"name": f"c{number}", "addresses": [client]},
                {"name": f"s{number}", "addresses": [server]},
            ]
            ends = {"sources": [f"c{number}"], "destinations": [f"s{number}"]}
            mappings.append({"name": f"m{number}", **ends, "protocols": ["tcp"], "ports": str(port)})
        return {
            "format": "marchproxy/1",
            "interfaces": [
                {"name": "inside0", "role": "inside", "mode": "tc"},
                {"name": "outside0", "role": "outside", "mode": "tc", "masquerade": True},
            ],
            "clusters": [{"name": "default", "services": services, "mappings": mappings}],
        }


class NftablesGateway(Gateway, Nftables):
    """netfilter as its documentation advises: conntrack first, then one look-up in a concatenated set."""

    name = "nftables-gateway"
    title = "nftables gateway"

    def _rules(self) -> str:
        allowed = [(client, server, port) for client, server, port in pairs()]
        tcp = [port.number for port in PORTS if port.transport == "tcp"]
        udp = [port.number for port in PORTS if port.transport == "udp"]
        elements = [f"{client} . {server} . {port}" for client, server, port in allowed]
        elements += [f"10.1.0.0/24 . {self.server} . {port}" for port in tcp]
        more = ", ".join(f"10.1.0.0/24 . {self.server} . {port}" for port in udp)
        kind = "type ipv4_addr . ipv4_addr . inet_service; flags interval;"
        return f"""
            table ip bench {{
                set tcp_allowed {{ {kind} elements = {{ {", ".join(elements)} }} }}
                set udp_allowed {{ {kind} elements = {{ {more} }} }}
                chain through {{ type filter hook forward priority filter; policy drop;
                    ct state established,related accept
                    ip saddr . ip daddr . tcp dport @tcp_allowed accept
                    ip saddr . ip daddr . udp dport @udp_allowed accept
                }}
                chain out {{ type nat hook postrouting priority srcnat; oifname "outside0" masquerade; }}
            }}
        """
