"""Figures of one run: kept as JSON, summarised as medians."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

from benchmarks.contenders import Routing
from rig import RigError

RESULTS = Path(__file__).with_name("results")
"""Where runs are kept; not under version control."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure, in the workload's own unit (bits, answers or packets a second)."""

    round: int
    workload: str
    contender: str
    value: float
    busy: float
    """Seconds that processors of the machine were busy for each of what `value` counts."""
    machine: float = 0.0
    """The same, where `busy` is of the contender's own processes alone."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several figures, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarise at least one figure."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """One contender at one workload."""

    value: Spread
    ratio: Spread
    """To plain routing of the same round, so that what disturbs a machine for minutes disturbs both."""
    busy: Spread
    busy_ratio: Spread
    """Also to plain routing."""


@dataclass(slots=True)
class Run:
    """Everything that one run found out."""

    machine: Mapping[str, str]
    contenders: Mapping[str, str]
    """Name to exact version, in the order of the table."""
    rounds: int
    seconds: int
    measurements: list[Measurement] = field(default_factory=list)
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
            return cls(**raw | {"measurements": [Measurement(**one) for one in raw["measurements"]]})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RigError(f"{path} is no saved run of this version: {error}") from error

    def summary(self, workload: str, contender: str) -> Summary | None:
        """The medians, or None where there is no round with both this contender and plain routing."""
        mine, routed = self._by_round(workload, contender), self._by_round(workload, Routing.name)
        both = sorted(mine.keys() & routed.keys())
        if not both:
            return None
        pairs = [(mine[number], routed[number]) for number in both]
        return Summary(
            Spread.of([one.value for one, _ in pairs]),
            Spread.of([one.value / other.value for one, other in pairs]),
            Spread.of([one.busy for one, _ in pairs]),
            Spread.of([one.busy / other.busy for one, other in pairs]),
        )

    def _by_round(self, workload: str, contender: str) -> dict[int, Measurement]:
        return {
            one.round: one
            for one in self.measurements
            if (one.workload, one.contender) == (workload, contender)
        }
