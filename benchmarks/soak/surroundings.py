"""What an appliance stands on and among: store, disk, memory, clock, backends and the DNS server."""

import errno
import random
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from benchmarks.processor import family
from benchmarks.soak.scene import Scene
from marchproxy.store.location import FILE_NAME

LEAST, MOST = 3.0, 6.0
ROOM = 2 << 20
"""Bytes of address space that are left to each process where memory runs short."""
_PAGE = resource.getpagesize()


@contextmanager
def _troubled(scene: Scene) -> Iterator[None]:
    """What the operator is told meanwhile may be an error, if it is one for people."""
    assert scene.operator is not None
    scene.operator.troubled.set()
    try:
        yield
    finally:
        scene.operator.troubled.clear()


def backend(scene: Scene, draw: random.Random) -> None:
    """One of two dies, longer than it takes to be noticed, and returns."""
    scene.member.kill()
    try:
        scene.wait(draw.uniform(8.0, 10.0))
    finally:
        scene.start_member()


def dns(scene: Scene, draw: random.Random) -> None:
    """The only server is away for longer than its answers hold."""
    scene.dns.kill()
    try:
        scene.wait(draw.uniform(LEAST, MOST))
    finally:
        scene.start_dns()


def clock(scene: Scene, draw: random.Random) -> None:
    """The wall clock jumps by hours, and back."""
    assert scene.clock is not None
    scene.clock.write_text(f"{draw.choice(('+3h', '-3h', '+2d', '-90s'))}\n")
    try:
        scene.wait(draw.uniform(LEAST, MOST))
    finally:
        scene.clock.write_text("+0\n")


def disk(scene: Scene, draw: random.Random) -> None:
    """The file system of the store is full to the last byte."""
    assert scene.disk is not None
    filler = scene.disk / "filler"
    with _troubled(scene):
        try:
            _fill(filler)
            scene.wait(draw.uniform(LEAST, MOST))
        finally:
            filler.unlink()
            # What a command found full a moment ago it may still be about to say.
            scene.wait(1.0)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as sink:
        for size in (1 << 20, _PAGE):
            try:
                while sink.write(bytes(size)):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def locked(scene: Scene, draw: random.Random) -> None:
    """Another program holds the store for itself, for longer than anybody waits."""
    with _troubled(scene):
        with closing(sqlite3.connect(scene.appliance.state / FILE_NAME, timeout=5.0)) as connection:
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN EXCLUSIVE")
            scene.wait(draw.uniform(LEAST, 3 * MOST))
            connection.rollback()
        scene.wait(1.0)


def memory(scene: Scene, draw: random.Random) -> None:
    """No process of the appliance gets more address space than it has."""
    daemon = scene.appliance.daemon
    pids = family(daemon.pid) if daemon else []
    before: dict[int, tuple[int, int]] = {}
    for pid in pids:
        with suppress(OSError):
            used = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * _PAGE
            before[pid] = resource.prlimit(pid, resource.RLIMIT_AS)
            resource.prlimit(pid, resource.RLIMIT_AS, (used + ROOM, before[pid][1]))
    try:
        scene.wait(draw.uniform(LEAST, MOST))
    finally:
        for pid, limits in before.items():
            # A worker may have ended, and be another one by now.
            with suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_AS, limits)
        _lift(scene)


def _lift(scene: Scene) -> None:
    """For workers that were started under their parent's limit."""
    daemon = scene.appliance.daemon
    for pid in family(daemon.pid) if daemon and daemon.running else []:
        with suppress(OSError):
            _, most = resource.prlimit(pid, resource.RLIMIT_AS)
            resource.prlimit(pid, resource.RLIMIT_AS, (most, most))
