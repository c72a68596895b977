"""What `marchproxy trace` knows of addresses: which services have them, and which are the appliance's."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.table import Row
from marchproxy.client.control import Control
from marchproxy.client.covered import local_addresses
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError, NotFound
from marchproxy.model.names import qualify

if TYPE_CHECKING:
    from marchproxy.dataplane.naming import AllServices
    from marchproxy.dataplane.trace.scope import Scope

_KNOWN_BACKENDS = 10_000
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}
_ARP = 0x0806


class TracedServices:
    """By the store, and by the daemon where host names are concerned."""

    def __init__(self, environment: Environment, wanted: str | None = None) -> None:
        """Raises `NotFound` where there is no service `wanted`."""
        self.environment = environment
        self.wanted = wanted
        self._snapshot = intent.read(environment)
        self._services = {
            qualify(cluster.name, service.name): service
            for cluster in self._snapshot.clusters
            for service in cluster.services
        }
        if wanted is not None and not any(_is_named(name, wanted) for name in self._services):
            raise NotFound("service", wanted, hint="see: marchproxy service list")

    @property
    def daemon(self) -> int:
        """The daemon's process; 0 where none runs. Its network namespace is the appliance's."""
        return int(self._status.get("pid", 0))

    def backends(self) -> set[tuple[str, int]]:
        """Those that have connections now."""
        try:
            rows, _ = Control(self.environment).fetch("/v1/flows", protocol="tcp", limit=_KNOWN_BACKENDS)
        except DaemonNotRunning:
            return set()
        return {(row["backend"], row["backend_port"]) for row in rows}

    def scope(self, backends: Iterable[tuple[str, int]]) -> "Scope":
        """What is looked at: the service that is wanted, or all that is the appliance's.

        `backends` as above.
        """
        from marchproxy.bpf import ABI
        from marchproxy.bpf.places import PINS
        from marchproxy.dataplane.naming import prefixes_of
        from marchproxy.dataplane.trace.scope import Scope, of_appliance

        if self.wanted is not None:
            meant = (each for name, each in self._services.items() if _is_named(name, self.wanted))
            return Scope(
                services=frozenset(prefix for each in meant for prefix in prefixes_of(each, self._resolved))
            )
        pins = Path(self.environment.variables.get("MARCHPROXY_BPFFS") or PINS) / f"v{ABI}"
        return of_appliance(
            self._snapshot,
            self._resolved,
            [(ip_address(address), port) for address, port in backends],
            local_addresses(Path(f"/proc/{self.daemon or 'self'}/net")),
            pins=pins if (pins / "flows").exists() else None,
            daemon=self.daemon,
        )

    def complete(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """An event or total with the services of both ends."""
        row = dict(document)
        for name in ("source", "destination"):
            row[f"{name}_service"] = self._name(row[name], row[f"{name}_port"]) if row[name] else ""
        ethertype = row.pop("ethertype", 0)
        number = row["protocol"]
        if number is None:
            row["protocol"] = "arp" if ethertype == _ARP else f"0x{ethertype:04x}" if ethertype else ""
        else:
            row["protocol"] = _PROTOCOLS.get(number, str(number))
        return row

    def is_meant(self, row: Row) -> bool:
        """Whether either end is in the service that is wanted."""
        if self.wanted is None:
            return True
        return any(row[name] and self._has(row[name], self.wanted) for name in ("source", "destination"))

    def latencies(self, found: Iterable[Row]) -> list[dict[str, Any]]:
        """One row for each service and kind of measurement; backends without one stand for themselves."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for each in found:
            if self.wanted is not None and not self._has(each["backend"], self.wanted):
                continue
            name = self.wanted or self._name(each["backend"], each["port"]) or each["backend"]
            empty = {"service": name, "what": each["what"], "count": 0, "total_ns": 0, "slots": {}}
            row = rows.setdefault((name, each["what"]), empty)
            row["count"] += each["count"]
            row["total_ns"] += each["total_ns"]
            for slot, count in each["slots"].items():
                row["slots"][int(slot)] = row["slots"].get(int(slot), 0) + count
        return [_measured(row) for _, row in sorted(rows.items())]

    def _name(self, address: str, port: int) -> str:
        """The service with that address, if possible one of that port; empty for a stranger."""
        names = self._names.names(ip_address(address))
        return min(names, key=lambda name: (self._services[name].port != port, name), default="")

    def _has(self, address: str, service: str) -> bool:
        return any(_is_named(name, service) for name in self._names.names(ip_address(address)))

    @cached_property
    def _status(self) -> Mapping[str, Any]:
        """What the daemon says of itself; empty where none runs."""
        try:
            status: Mapping[str, Any] = Control(self.environment).get("/v1/status")
        except MarchproxyError:
            return {}
        return status

    @cached_property
    def _resolved(self) -> Mapping[str, list[IPAddress]]:
        names = self._status.get("names", {})
        return {name: list(map(ip_address, held)) for name, held in names.items()}

    @cached_property
    def _names(self) -> "AllServices":
        from marchproxy.dataplane.naming import AllServices

        return AllServices(lambda: self._snapshot, self._resolved)


def _is_named(name: str, text: str) -> bool:
    """`cluster/name` is meant by itself and by `name`."""
    return text in (name, name.partition("/")[2])


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    """With its mean and its slots as ranges. Slot n holds 2^(n-1) to 2^n - 1 microseconds."""
    slots = row.pop("slots")
    total = row.pop("total_ns")
    row["mean_us"] = round(total / row["count"] / 1000, 1) if slots else None
    row["histogram"] = [
        {"from_us": 1 << slot - 1 if slot > 1 else 0, "to_us": (1 << slot) - 1, "count": slots[slot]}
        for slot in sorted(slots)
    ]
    return row
