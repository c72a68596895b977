"""blockfiles: files as they lie about, and what is said while they are read."""

import gzip
import io
from pathlib import Path

import pytest

from marchproxy.cli import blockfiles
from marchproxy.cli.blockfiles import read_file
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import InvalidFile
from tests.cli.console import Keyboard, Screen


def environment(typed: bytes = b"", *, tty: bool = False) -> Environment:
    return Environment(
        stdin=Keyboard(typed, tty=False), stdout=io.StringIO(), stderr=Screen(tty=tty), variables={}
    )


def test_bytes_that_are_no_text_are_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"10.0.0.1\n\xff\xfe\x00\n10.0.0.2")
    reading = read_file(environment(), str(path), strict=False)
    assert (len(reading.contents), reading.bad_lines) == (2, 1)


def test_compressed_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "list.gz"
    path.write_bytes(gzip.compress(b"10.0.0.1\n"))
    with pytest.raises(InvalidFile, match="compressed") as caught:
        read_file(environment(), str(path), strict=False)
    assert caught.value.hint.startswith("zcat ")


@pytest.mark.parametrize("name", ["", "\0"])
def test_folder_and_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidFile):
        read_file(environment(), name or str(tmp_path), strict=False)


def test_file_of_rubbish_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="not one line of 3"):
        read_file(environment(b"<html>\n<p>\n</html>\n"), "-", strict=False)


def test_bar_is_drawn_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockfiles, "_BAR_FROM", 1)
    text = b"10.0.0.1\n" * 25_000
    for tty in (True, False):
        seen = environment(text, tty=tty)
        read_file(seen, "-", strict=False)
        shown = seen.stderr.getvalue()  # type: ignore[attr-defined]
        assert ("reading" in shown) is tty
