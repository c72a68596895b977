"""The live table, made of nothing but what `status` and `flows` print as JSON."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

type Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Carried:
    """Conversations of one kind: a row of the upper table."""

    mapping: str
    protocol: str
    family: str
    tier: str


@dataclass(frozen=True, slots=True, order=True)
class Refused:
    """Refusals of one kind: a row of the lower table."""

    source: str
    wanted: str
    reason: str
    tier: str
    mapping: str


@dataclass(slots=True)
class Amount:
    """What conversations of one kind come to."""

    flows: int = 0
    packets: int = 0
    bytes: int = 0


class Board:
    """Remembers conversations that have ended, so that the table only grows."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.status: Document = {}
        self._flows: dict[tuple[object, ...], Document] = {}
        self._refusals: dict[tuple[object, ...], Refused] = {}

    def update(self, status: Document, flows: Iterable[Document], denied: Iterable[Document]) -> None:
        """Take over what the three commands printed."""
        self.status = status
        for flow in flows:
            self._flows[_conversation(flow)] = flow
        for record in denied:
            key = (*_conversation(record), record["time"])
            self._refusals[key] = Refused(
                record["source"],
                f"{_endpoint(record)}/{record['protocol']}",
                record["reason"],
                record["tier"],
                _short(record["mapping"]),
            )

    def carried(self) -> dict[Carried, Amount]:
        """Conversations by kind."""
        amounts: dict[Carried, Amount] = {}
        for flow in self._flows.values():
            family = "IPv6" if ":" in flow["source"] else "IPv4"
            kind = Carried(_short(flow["mapping"]), flow["protocol"], family, flow["tier"])
            amount = amounts.setdefault(kind, Amount())
            amount.flows += 1
            amount.packets += flow["packets_sent"] + flow["packets_received"]
            amount.bytes += flow["bytes_sent"] + flow["bytes_received"]
        return dict(sorted(amounts.items()))

    def refused(self) -> Counter[Refused]:
        """Refusals by kind."""
        return Counter(dict(sorted(Counter(self._refusals.values()).items())))

    def __rich__(self) -> Group:
        return Group(self._carried_table(), self._refused_table(), self._counters())

    def _carried_table(self) -> Table:
        table = _table("carried", "green", "mapping", "protocol", "family", "tier")
        for name in ("flows", "packets", "bytes"):
            table.add_column(name, justify="right", min_width=8)
        for kind, amount in self.carried().items():
            table.add_row(
                kind.mapping,
                kind.protocol,
                kind.family,
                kind.tier,
                f"{amount.flows:,}",
                f"{amount.packets:,}",
                size(amount.bytes),
            )
        return table

    def _refused_table(self) -> Table:
        table = _table("denied", "red", "source", "wanted", "why", "tier")
        table.add_column("times", justify="right", min_width=8)
        for kind, times in self.refused().items():
            why = f"{kind.reason} ({kind.mapping})" if kind.mapping else kind.reason
            # As Text: in a plain string rich would take [fd01::1] for markup.
            table.add_row(kind.source, Text(kind.wanted), why, kind.tier, f"{times:,}")
        return table

    def _counters(self) -> Text:
        counted = (f"{reason} {one['packets']:,}" for reason, one in self.status.get("counters", {}).items())
        return Text("packets by reason: " + ", ".join(counted), style="dim")


def _table(title: str, style: str, *columns: str) -> Table:
    table = Table(
        title=title, title_style=f"bold {style}", title_justify="left", expand=True, border_style="dim"
    )
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _conversation(record: Document) -> tuple[object, ...]:
    """What tells conversations apart, also after their ids were used again."""
    ends = ("source", "source_port", "destination", "destination_port", "protocol")
    return (record["id"], *(record[name] for name in ends))


def _endpoint(record: Document) -> str:
    address, port = record["destination"], record["destination_port"]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _short(mapping: str) -> str:
    """Without the cluster: there is only one."""
    return mapping.rpartition("/")[2]


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.{0 if unit == 'B' else 1}f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
