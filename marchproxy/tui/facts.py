"""What the daemon said, and what follows from two of its answers. No I/O and no clock: time is passed in."""

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

type Document = Mapping[str, Any]

KEPT: int = 600
"""Samples that a curve has at most: ten minutes at one a second."""
_CARRIED = ("FORWARDED", "HANDED_OFF")


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters at one moment; `at` is in seconds of any clock that only goes forward."""

    at: float
    packets: int
    bytes: int
    denied: int

    @classmethod
    def of(cls, status: Document, at: float) -> "Totals":
        """From a status document."""
        carried = [status["counters"][name] for name in _CARRIED if name in status["counters"]]
        return cls(
            at,
            sum(traffic["packets"] for traffic in carried),
            sum(traffic["bytes"] for traffic in carried),
            sum(row["packets"] for row in status["denied"]),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of the curves."""

    bits: float
    """A second, as the other two."""
    packets: float
    denied: float
    flows: int

    @classmethod
    def between(cls, before: Totals, now: Totals, flows: int) -> "Sample":
        """Counters that went back (programs were loaded anew) count as no traffic."""
        seconds = max(now.at - before.at, 0.001)

        def rate(then: int, later: int) -> float:
            return max(later - then, 0) / seconds

        return cls(
            rate(before.bytes, now.bytes) * 8,
            rate(before.packets, now.packets),
            rate(before.denied, now.denied),
            flows,
        )


class History:
    """The curves, from the first answer on."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: Totals | None = None

    def add(self, status: Document, at: float) -> Sample | None:
        """Take an answer in. None: it is the first, and says nothing about rates yet."""
        now, before = Totals.of(status, at), self._before
        self._before = now
        if before is None:
            return None
        sample = Sample.between(before, now, flow_count(status))
        self.samples.append(sample)
        return sample

    def curve(self, what: str, points: int) -> Sequence[float]:
        """The last so many values of a field of `Sample`, with zeros before the first."""
        values = [float(getattr(sample, what)) for sample in self.samples][-points:]
        return [0.0] * (points - len(values)) + values

    @property
    def latest(self) -> Sample | None:
        """The newest point."""
        return self.samples[-1] if self.samples else None


_TABLES = ("flows", "connections", "sessions", "tunnels", "associations")
"""The tables whose entries are carried: those that are being opened, and claimed ports, are left out."""


def flow_count(status: Document) -> int:
    """Flows that are carried, by whatever tier; in the kernel's table each has two entries."""
    used = {table["name"]: int(table["used"]) for table in status["flow_table"]}
    return sum(used.get(name, 0) // (2 if name == "flows" else 1) for name in _TABLES)


class Rates[K: Hashable]:
    """What is added a second to rows that come again and again, by what tells them apart."""

    def __init__(self) -> None:
        self._before: dict[K, int] = {}
        self._at = 0.0

    def of(self, counts: Mapping[K, int], at: float) -> dict[K, float]:
        """Rates since the call before; rows that were not there then have none yet."""
        seconds = max(at - self._at, 0.001)
        rates = {
            key: max(count - self._before[key], 0) / seconds
            for key, count in counts.items()
            if key in self._before
        }
        self._before, self._at = dict(counts), at
        return rates
