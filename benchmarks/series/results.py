"""Figures of series: kept as JSON, summarised as medians."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.results import Spread
from rig import RigError


@dataclass(frozen=True, slots=True)
class Point:
    """One figure of one round."""

    series: str
    line: str
    """The contender, or what else is compared."""
    step: int
    """The size, count or number that the series varies."""
    round: int
    value: float
    """In the series' own unit: pieces of work a second, or seconds a packet."""
    busy: float = 0.0
    """Seconds that processors of the machine were busy for one piece of work; 0: not measured."""
    softirq: float = 0.0
    """Of them, in soft interrupts."""
    programs: float = 0.0
    """Of them, in the programs that made the traffic."""


@dataclass(slots=True)
class Run:
    """Everything that one run found out."""

    machine: Mapping[str, str]
    rounds: int
    seconds: float
    points: list[Point] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What could not be measured and why."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises `RigError` for anything else."""
        try:
            raw = json.loads(path.read_text())
            return cls(**raw | {"points": [Point(**one) for one in raw["points"]]})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RigError(f"{path} is no saved run of series: {error}") from error

    def of(self, series: str, line: str, step: int) -> list[Point]:
        """A figure for each round."""
        return [one for one in self.points if (one.series, one.line, one.step) == (series, line, step)]

    def lines(self, series: str) -> list[str]:
        """Who was measured, in the order of the first figures."""
        return list(dict.fromkeys(one.line for one in self.points if one.series == series))

    def steps(self, series: str) -> list[int]:
        """What was varied, in order."""
        return sorted({one.step for one in self.points if one.series == series})


def spread(figures: Iterable[float]) -> Spread | None:
    """None of no figures."""
    found = list(figures)
    return Spread.of(found) if found else None
