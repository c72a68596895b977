"""otherhalf: what two processes read of a file is what one would have read."""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from marchproxy.cli import otherhalf
from marchproxy.cli.blockfiles import read_file
from marchproxy.cli.otherhalf import OtherHalf
from marchproxy.model import blockfile
from marchproxy.model.blockfile import TooManyEntries, read_blocks
from tests.cli.test_blockfiles import environment

MANY = 300
FORMS: dict[str, Callable[[int], str]] = {
    "plain": lambda at: f"10.{at // 250}.{at % 250}.0/24\n",
    "csv": lambda at: f"10.0.{at // 250}.{at % 250},seen {at % 3},2099-01-0{at % 9 + 1}T00:00:00Z\n",
    "ipset": lambda at: f'add bad 2001:db8::{at:x} comment "{at % 2}"\n',
    "bad": lambda at: "10.0.0.1\n" if at % 7 else f"no address {at}\n",
    "nft": lambda at: "elements = { 10.0.0.1,\n" if at == 0 else f"10.1.{at // 250}.{at % 250},\n",
    "nft that ends": lambda at: "elements = { 10.0.0.1 }\n" if at == 0 else f"10.1.{at // 250}.{at % 250}\n",
    "set behind addresses": lambda at: "elements = {\n" if at == 140 else f"10.1.0.{at % 200},10.2.0.1\n",
    "names": lambda at: f"host{at}.example.com # {at}\n",
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is small is read together."""
    monkeypatch.setattr(otherhalf, "WORTH_IT", 1)
    monkeypatch.setattr(otherhalf, "_PIECE", 64)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.parametrize("form", FORMS)
def test_two_read_what_one_would(tmp_path: Path, form: str) -> None:
    text = "".join(map(FORMS[form], range(MANY)))
    file = tmp_path / "list"
    file.write_text(text)
    found = read_file(environment(), str(file), strict=False)
    assert found == read_blocks(text.splitlines(), datetime.now(UTC))
    assert list(found.contents.texts()), "something was read"


def test_a_reader_that_dies_is_missed_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[bool] = []

    class Doomed(OtherHalf):
        def join(self, reader: blockfile.BlockReader) -> bool:
            os.kill(self._process, signal.SIGKILL)
            joined.append(super().join(reader))
            return joined[-1]

    # It never gets to its answer.
    monkeypatch.setattr(otherhalf, "_read", lambda *_: signal.pause())
    monkeypatch.setattr("marchproxy.cli.blockfiles.OtherHalf", Doomed)
    file = tmp_path / "list"
    file.write_text("".join(map(FORMS["plain"], range(MANY))))
    assert len(read_file(environment(), str(file), strict=False).contents) == MANY
    assert joined == [False]


def test_too_many_in_both_halves_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockfile, "MAX_ENTRIES", MANY - 1)
    file = tmp_path / "list"
    file.write_text("".join(map(FORMS["plain"], range(MANY))))
    with pytest.raises(TooManyEntries):
        read_file(environment(), str(file), strict=False)


def test_no_process_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    fork = os.fork

    def counted() -> int:
        started.append(fork())
        return started[-1]

    monkeypatch.setattr(os, "fork", counted)
    file = tmp_path / "list"
    file.write_text("".join(map(FORMS["plain"], range(MANY))))
    read_file(environment(), str(file), strict=False)
    with pytest.raises(ChildProcessError):
        os.waitpid(started[0], os.WNOHANG)


def test_without_another_process_one_reads_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", forbidden)
    file = tmp_path / "list"
    file.write_text("".join(map(FORMS["plain"], range(MANY))))
    before = len(os.listdir("/proc/self/fd"))
    assert len(read_file(environment(), str(file), strict=False).contents) == MANY
    assert len(os.listdir("/proc/self/fd")) == before
