"""What is loaded while modules are imported: the pipeline as large as the store says, or nothing at all."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from marchproxy.dataplane.ahead import Ahead
from marchproxy.dataplane.kernel import loading, location
from marchproxy.dataplane.options import RunOptions
from marchproxy.model.errors import Conflict
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.store import Store


class Loaded:
    """Stands for a pipeline."""

    def __init__(self, flow_table: int) -> None:
        self.flow_table = flow_table
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """The pipelines that were loaded."""
    made: list[Loaded] = []

    def load(pins: Path, *, flow_table: int) -> Loaded:
        assert pins == location.pin_directory()
        made.append(Loaded(flow_table))
        return made[-1]

    monkeypatch.setattr(loading, "load_pipeline", load)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a flow table of its own size."""
    with Store.open(tmp_path, create=True) as store:
        store.replace(with_table(2048), message="2048")
        yield store


def with_table(flow_table: int) -> Callable[[Snapshot], Snapshot]:
    return lambda snapshot: replace(snapshot, settings=replace(snapshot.settings, flow_table=flow_table))


def options(state_dir: Path, *, no_bpf: bool = False) -> RunOptions:
    return RunOptions(state_dir=state_dir, no_bpf=no_bpf)


def test_who_takes_it_has_it(loaded: list[Loaded], store: Store, tmp_path: Path) -> None:
    with closing(Ahead(options(tmp_path))) as ahead:
        taken = ahead.take()
        assert ahead.take() is None
    assert taken is cast(object, loaded[0])
    assert (loaded[0].flow_table, loaded[0].closed) == (2048, 0)


def test_what_nobody_takes_is_closed(loaded: list[Loaded], store: Store, tmp_path: Path) -> None:
    ahead = Ahead(options(tmp_path))
    ahead.close()
    ahead.close()
    assert [each.closed for each in loaded] == [1]


@pytest.mark.parametrize("why", ["sockets", "no store", "a trial"])
def test_nothing_where_the_supervisor_has_the_say(
    loaded: list[Loaded], store: Store, tmp_path: Path, why: str
) -> None:
    """Of a trial that is over the settings go back before anything is carried out."""
    if why == "a trial":
        store.replace(with_table(4096), message="4096", trial=60)
    folder = tmp_path / "nowhere" if why == "no store" else tmp_path
    with closing(Ahead(options(folder, no_bpf=why == "sockets"))) as ahead:
        assert ahead.take() is None
    assert loaded == []


def test_what_is_in_the_way_is_told_to_who_takes_it(
    monkeypatch: pytest.MonkeyPatch, store: Store, tmp_path: Path
) -> None:
    def refuse(pins: Path, *, flow_table: int) -> Loaded:
        raise Conflict("another daemon has them")

    monkeypatch.setattr(loading, "load_pipeline", refuse)
    with closing(Ahead(options(tmp_path))) as ahead, pytest.raises(Conflict):
        ahead.take()
    Ahead(options(tmp_path)).close()
