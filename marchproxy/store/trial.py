"""A revision on trial: it goes back by itself unless somebody confirms it in time.

The trial stands in the store beside the revision, written in the same transaction, so that it outlives
whoever asked for it, the daemon and the machine. Time is told twice. While the machine that wrote it is up,
the clock since boot decides (CLOCK_BOOTTIME, which runs on while suspended), and nobody can set it. After
another boot only the wall clock is left; one that reads earlier than the start of the trial cannot be right,
and then the trial is over: the way back is what an operator who does not answer has been promised.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.store.database import Database
from marchproxy.store.errors import StoreCorrupt
from marchproxy.store.rows import read_instant
from marchproxy.store.writer import insert

if TYPE_CHECKING:
    from pydal import DAL

LONGEST = 86_400
"""Seconds that a trial may last."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SELECT = "SELECT revision, previous, seconds, deadline, boot, uptime FROM trial"


class NoTrial(NotFound):
    """There is nothing to confirm."""

    def __init__(self) -> None:
        super().__init__("trial", "")
        self.message = "nothing waits to be confirmed"


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, by the wall clock and since boot."""

    wall: datetime
    boot: str
    """Which boot of which machine."""
    uptime: float
    """Seconds since then."""

    @classmethod
    def now(cls) -> Self:
        """This moment, on this machine."""
        return cls(datetime.now(UTC), _BOOT_ID.read_text().strip(), time.clock_gettime(time.CLOCK_BOOTTIME))


@dataclass(frozen=True, slots=True)
class Trial:
    """What is on trial, where it goes back to, and when."""

    revision: int
    previous: int
    seconds: int
    """How long it was given, 1 to `LONGEST`."""
    deadline: datetime
    """UTC, to the second."""
    boot: str
    uptime: int
    """The same deadline in seconds since that boot."""

    def remaining(self, moment: Moment) -> float:
        """Seconds until it goes back; 0: it is due."""
        if moment.boot == self.boot:
            return max(0.0, self.uptime - moment.uptime)
        left = (self.deadline - moment.wall).total_seconds()
        return left if 0 < left <= self.seconds + 1 else 0.0


def start_trial(revision: int, previous: int, seconds: int, moment: Moment) -> Trial:
    """A trial that begins now. Raises `InvalidValue`."""
    if not 1 <= seconds <= LONGEST:
        raise InvalidValue("confirm", seconds, f"seconds from 1 to {LONGEST}")
    deadline = moment.wall + timedelta(seconds=seconds, microseconds=999_999)
    return Trial(
        revision,
        previous,
        seconds,
        deadline.replace(microsecond=0),
        moment.boot,
        ceil(moment.uptime + seconds),
    )


def read_trial(database: Database) -> Trial | None:
    """The trial that runs, if one does. Raises `StoreCorrupt`."""
    rows = database.query(_SELECT)
    if not rows:
        return None
    try:
        return _read(rows[0])
    except (TypeError, ValueError) as error:
        raise StoreCorrupt(database.label, f"trial: {error}") from error


def write_trial(dal: "DAL", trial: Trial) -> None:
    """Keep it, in the transaction that writes its revision."""
    insert(
        dal.trial,
        revision=trial.revision,
        previous=trial.previous,
        seconds=trial.seconds,
        deadline=trial.deadline.replace(tzinfo=None),
        boot=trial.boot,
        uptime=trial.uptime,
    )


def end_trial(dal: "DAL") -> None:
    """Forget it: it was confirmed, or went back in this transaction."""
    dal(dal.trial.id > 0).delete()


def refuse_during(trial: Trial | None) -> None:
    """Raise `Conflict` while a trial runs: going back would take with it what was written meanwhile."""
    if trial is None:
        return
    left = ceil(trial.remaining(Moment.now()))
    raise Conflict(
        f"revision {trial.revision} waits to be confirmed for {left} s more: nothing else can be changed",
        hint=f"marchproxy confirm keeps it, marchproxy revision rollback {trial.previous} takes it back now",
    )


def _read(row: Any) -> Trial:
    revision, previous, seconds, deadline, boot, uptime = row
    return Trial(int(revision), int(previous), int(seconds), read_instant(deadline), str(boot), int(uptime))
