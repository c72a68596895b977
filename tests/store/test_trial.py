"""Revisions on trial: whatever the clocks say, they go back in time or are kept."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marchproxy.model.errors import Conflict, InvalidValue
from marchproxy.store.errors import StoreCorrupt
from marchproxy.store.store import Store
from marchproxy.store.trial import LONGEST, Moment, NoTrial, start_trial
from tests.store.build import appending, service

NOON = Moment(datetime(2030, 1, 1, 12, 0, 0, 500_000, UTC), "first", 1000.25)
TRIAL = start_trial(5, 4, 60, NOON)


def later(seconds: float, *, wall: float | None = None, boot: str = "first") -> Moment:
    """Some seconds on; the wall clock may have been set, the machine may have been started again."""
    moved = timedelta(seconds=seconds if wall is None else wall)
    return Moment(NOON.wall + moved, boot, NOON.uptime + seconds if boot == "first" else seconds)


@pytest.mark.parametrize(
    ("moment", "least", "most"),
    [
        (later(0), 60, 61),
        (later(59), 1, 2),
        (later(61), 0, 0),
        (later(30, wall=86_400), 30, 31),
        (later(30, wall=-86_400), 30, 31),
        (later(61, wall=0), 0, 0),
        (later(20, wall=40, boot="second"), 20, 21),
        (later(20, wall=61, boot="second"), 0, 0),
        (later(20, wall=-86_400, boot="second"), 0, 0),
    ],
    ids=[
        *("at once", "just in time", "too late", "the clock was put forward", "the clock was put back"),
        *("the clock stands", "after a restart", "after a long restart", "after a restart without a clock"),
    ],
)
def test_what_remains(moment: Moment, least: float, most: float) -> None:
    assert least <= TRIAL.remaining(moment) <= most


@pytest.mark.parametrize("seconds", [0, -1, LONGEST + 1])
def test_lengths_that_cannot_be_meant(store: Store, seconds: int) -> None:
    with pytest.raises(InvalidValue):
        store.replace(appending(service("web")), message="web", trial=seconds)
    assert store.head().number == 1
    assert store.trial() is None


def test_a_trial_stands_beside_its_revision(state_dir: Path, store: Store) -> None:
    revision = store.replace(appending(service("web")), message="web", trial=60)
    with Store.open(state_dir, read_only=True) as reader:
        trial = reader.trial()
    assert trial is not None
    assert (trial.revision, trial.previous, trial.seconds) == (revision.number, 1, 60)
    assert 59 <= trial.remaining(Moment.now()) <= 61


def test_what_changes_nothing_is_not_on_trial(store: Store) -> None:
    assert store.replace(lambda snapshot: snapshot, message="nothing", trial=60).number == 1
    assert store.trial() is None


def test_confirmed_it_stays(store: Store) -> None:
    revision = store.replace(appending(service("web")), message="web", trial=60)
    assert store.confirm().revision == revision.number
    assert store.trial() is None
    assert store.head() == revision
    with pytest.raises(NoTrial) as caught:
        store.confirm()
    assert caught.value.message == "nothing waits to be confirmed"


def test_too_late_to_confirm(store: Store) -> None:
    store.replace(appending(service("web")), message="web", trial=60)
    now = Moment.now()
    with pytest.raises(Conflict, match="is over"):
        store.confirm(replace(now, uptime=now.uptime + 62))
    assert store.trial() is not None


def test_nothing_else_may_change_meanwhile(store: Store) -> None:
    store.replace(appending(service("web")), message="web", trial=60)
    changes: tuple[Callable[[], object], ...] = (
        lambda: store.replace(appending(service("api")), message="api"),
        lambda: store.replace(appending(service("api")), message="api", trial=60),
        lambda: store.rollback(2),
    )
    for change in changes:
        with pytest.raises(Conflict, match="revision 2 waits to be confirmed") as caught:
            change()
        assert "revision rollback 1" in caught.value.hint
    assert store.head().number == 2


def test_the_way_back_ends_it(store: Store) -> None:
    before = store.snapshot()
    store.replace(appending(service("web")), message="web", trial=60)
    store.rollback(1)
    assert store.trial() is None
    assert store.snapshot() == before
    store.replace(appending(service("api")), message="api")


def test_going_back_by_itself(store: Store) -> None:
    before = store.snapshot()
    store.replace(appending(service("web")), message="web", trial=60)
    trial = store.trial()
    assert trial is not None
    reverted = store.revert(trial)
    assert (reverted.number, reverted.author) == (3, "marchproxy")
    assert reverted.message == "revision 2 was not confirmed: back to 1"
    assert store.snapshot() == before
    assert store.trial() is None


def test_a_trial_that_was_confirmed_does_not_go_back(store: Store) -> None:
    store.replace(appending(service("web")), message="web", trial=60)
    trial = store.trial()
    assert trial is not None
    head = store.head()
    store.confirm()
    assert store.revert(trial) == head
    store.replace(appending(service("api")), message="api", trial=60)
    assert store.revert(trial).number == 3
    assert store.trial() is not None, "the new one is not touched"


def test_it_outlives_the_process_that_wrote_it(state_dir: Path, store: Store) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from marchproxy.store.store import Store\n"
        "from tests.store.build import appending, service\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "store.replace(appending(service('web')), message='web', trial=60)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(state_dir)], check=False)
    assert ended.returncode == -9
    trial = store.trial()
    assert trial is not None
    assert store.revert(trial).number == 3


def test_damage_is_named(store: Store) -> None:
    store.replace(appending(service("web")), message="web", trial=60)
    store._database.query("UPDATE trial SET deadline = 'soon'")
    with pytest.raises(StoreCorrupt, match="trial"):
        store.trial()
