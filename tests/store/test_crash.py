"""kill -9 at any moment leaves the last committed revision, readable and true to its hash."""

import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.store.store import Store
from tests.store.build import appending, service
from tests.store.processes import run, start

MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of its own is made in it)


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    """In memory if that can be had: a killed process leaves there what it leaves on a disk, only sooner."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path / "state"
        return
    with tempfile.TemporaryDirectory(prefix="mp-", dir=MEMORY) as folder:
        yield Path(folder) / "state"


def test_killed_before_any_statement_of_a_write(state_dir: Path, store: Store) -> None:
    store.close()
    lines = run("die_writing", state_dir).splitlines()
    heads = [int(line.split()[1]) for line in lines]
    assert len(heads) > 10, "more statements than these make up a write"
    assert heads == [1] * (len(heads) - 1) + [2]


def test_killed_before_any_statement_of_making_the_store(state_dir: Path) -> None:
    lines = run("die_creating", state_dir).splitlines()
    assert len(lines) > 20
    assert [line.split()[1] for line in lines] == ["True"] * (len(lines) - 1) + ["False"]


def test_killed_at_random_moments(state_dir: Path, store: Store) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for _ in range(8):
        before = store.head().number
        with start("write", state_dir) as writer:
            assert writer.stdout is not None
            committed = before
            for _ in range(chance.randint(1, 15)):
                committed = int(writer.stdout.readline())
            # Not a wait for anything: the moment of death is what varies.
            kill_after = chance.uniform(0, 0.005)
            try:
                writer.wait(kill_after)
            except subprocess.TimeoutExpired:
                writer.kill()
            said = writer.stdout.read().split()
            assert writer.wait() == -signal.SIGKILL, f"seed {seed}"
        committed = int(said[-1]) if said else committed
        with Store.open(state_dir) as found:
            head = found.verify()
            # It may have died between the commit and the word about it, but no word is broken.
            assert committed <= head.number <= committed + 1, f"seed {seed}"
            assert found.snapshot_at(before).sha256() == found.revision(before).sha256
            after = found.replace(appending(service(f"after-{head.number}")), message="go on")
            assert after.number == head.number + 1
    assert store.verify().number == store.head().number
