"""Several processes on one store: nothing is lost, nothing is half there."""

from pathlib import Path

from marchproxy.store.store import Store
from tests.store.build import holding, service
from tests.store.processes import start

WRITERS, TIMES = ("a", "b"), 40


def test_two_processes_that_write_at_once_lose_nothing(state_dir: Path, store: Store) -> None:
    """A reader beside them always sees a snapshot and the revision it belongs to."""
    store.replace(holding([service("counter", port=1)]), message="counter")
    writers = [start("append", state_dir, name, TIMES) for name in WRITERS]
    seen = {2}
    while any(writer.poll() is None for writer in writers):
        with Store.open(state_dir, read_only=True) as reader:
            seen.add(reader.verify().number)
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert len(seen) > 2, "the reader read while they wrote"

    expected = 2 + len(WRITERS) * TIMES
    assert [revision.number for revision in store.revisions(1000)] == list(range(expected, 0, -1))
    services = {item.name: item for item in store.snapshot().clusters[0].services}
    wanted = {f"{name}-{number}" for name in WRITERS for number in range(TIMES)}
    assert services.keys() == wanted | {"counter"}
    assert services["counter"].port == 1 + len(WRITERS) * TIMES
    assert store.verify().number == expected
    assert store.snapshot_at(2).sha256() == store.revision(2).sha256


def test_two_processes_that_make_the_store_at_once_make_one(state_dir: Path) -> None:
    for round_ in range(3):
        folder = state_dir / str(round_)
        makers = [start("create", folder) for _ in range(3)]
        said = [maker.communicate()[0].strip() for maker in makers]
        assert [maker.returncode for maker in makers] == [0, 0, 0]
        assert sorted(said) == ["False", "False", "True"]
        with Store.open(folder) as store:
            assert store.verify().number == 1
