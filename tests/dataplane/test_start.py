"""Starting a daemon: who is second changes nothing, and what fails leaves nothing behind."""

import gc
from pathlib import Path

import pytest

from marchproxy.dataplane import ahead, start, supervisor
from marchproxy.dataplane.ahead import Ahead
from marchproxy.dataplane.options import RunOptions
from marchproxy.dataplane.runtime import RuntimeDir
from marchproxy.model.errors import Conflict
from marchproxy.store.errors import StoreMissing


def options(tmp_path: Path) -> RunOptions:
    return RunOptions(no_bpf=True, state_dir=tmp_path / "state", runtime_dir=tmp_path / "run", metrics=None)


def test_beside_another_daemon_nothing_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr(ahead, "_load", loaded.append)
    first = RuntimeDir(tmp_path / "run")
    with pytest.raises(Conflict, match="a daemon runs here already"):
        start.run(options(tmp_path))
    first.close()
    assert loaded == []


def test_without_a_store_there_is_no_daemon_and_the_folder_is_free_again(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        start.run(options(tmp_path))
    RuntimeDir(tmp_path / "run").close()


def test_garbage_is_collected_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands switch that off."""
    served = []

    async def serve(options: RunOptions, runtime: RuntimeDir, ahead: Ahead) -> None:
        served.append(gc.isenabled())

    monkeypatch.setattr(supervisor, "serve", serve)
    gc.disable()
    try:
        assert start.run(options(tmp_path)) == 0
    finally:
        gc.enable()
    assert served == [True]
