"""Other processes for the tests: `python -m tests.store.workers WHAT STATE_DIR [...]`."""

import itertools
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from marchproxy.model.snapshot import Snapshot
from marchproxy.store.store import Store
from tests.store.build import appending, service


def count_up(snapshot: Snapshot) -> Snapshot:
    """The port of service `counter` is one more: what a lost update would be seen by."""
    [cluster] = snapshot.clusters
    services = tuple(
        replace(item, port=(item.port or 0) + 1) if item.name == "counter" else item
        for item in cluster.services
    )
    return replace(snapshot, clusters=(replace(cluster, services=services),))


def append(state_dir: Path, name: str, times: str) -> None:
    """So many revisions, each with one more service and a higher count."""
    with Store.open(state_dir) as store:
        for number in range(int(times)):
            grow = appending(service(f"{name}-{number}"))
            store.replace(lambda snapshot, grow=grow: count_up(grow(snapshot)), message=f"{name} {number}")  # type: ignore[misc]


def create(state_dir: Path) -> None:
    """Make the store, and say whether it was this process that did."""
    with Store.open(state_dir, create=True) as store:
        print(store.created, flush=True)


def write(state_dir: Path) -> None:
    """Make revisions until killed, and say each number when it is committed."""
    with Store.open(state_dir) as store:
        for number in itertools.count():
            back = store.head().number // 2 or 1
            revision = (
                store.rollback(back)
                if number % 7 == 6
                else store.replace(appending(service(f"s{os.getpid()}-{number}")), message="add")
            )
            print(revision.number, flush=True)


def die_creating(state_dir: Path) -> None:
    """Try to make a store, each time killed one SQL statement later, and make it after all."""

    def attempt(folder: Path) -> None:
        Store.open(folder, create=True).close()

    for number in itertools.count(1):
        folder = state_dir / str(number)
        died = _die_at(number, attempt, folder)
        with Store.open(folder, create=True) as store:
            assert store.verify().number == 1
        print(number, died, flush=True)
        if not died:
            return


def die_writing(state_dir: Path) -> None:
    """Try to write a revision, each time killed one SQL statement later, until one attempt comes through."""

    def attempt(folder: Path) -> None:
        with Store.open(folder) as store:
            store.replace(appending(service("web")), message="web")

    for number in itertools.count(1):
        died = _die_at(number, attempt, state_dir)
        with Store.open(state_dir, read_only=True) as store:
            head = store.verify().number
        print(number, head, flush=True)
        if not died:
            return


def _die_at(statement: int, attempt: Callable[[Path], None], folder: Path) -> bool:
    """Run the attempt in a child, killed when it begins its nth SQL statement; whether it came so far."""
    child = os.fork()
    if child == 0:
        statements = itertools.count(1)
        connect = sqlite3.connect

        def trace(sql: str) -> None:
            if next(statements) == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        def connect_traced(*args: object, **options: object) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **options)  # type: ignore[call-overload]
            connection.set_trace_callback(trace)
            return connection

        sqlite3.connect = connect_traced  # type: ignore[assignment]
        attempt(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the child ended with status {status}"
    return status != 0


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
