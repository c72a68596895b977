"""The file that keeps answers over a restart, whatever happens to it."""

import json
import logging
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.names.memory import FORMAT, read, write

ONE, TWO = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def test_what_is_written_is_read_less_the_time_that_passed(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    names = {"db.example.com": [(ONE, inf, inf), (TWO, -10.0, 290.0)], "*.x.example": [(ONE, 60.0, 360.0)]}
    write(path, names, 1000)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read(path, 1100) == {
        "db.example.com": [(ONE, inf, inf), (TWO, -110.0, 190.0)],
        "*.x.example": [(ONE, -40, 260)],
    }
    assert read(path, 1300) == {"db.example.com": [(ONE, inf, inf)], "*.x.example": [(ONE, -240, 60)]}
    # A clock that was turned back must not make addresses older than they are.
    assert read(path, 0)["*.x.example"] == [(ONE, 60, 360)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["names.json"]


def test_a_missing_file_is_nothing_to_talk_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(tmp_path / "none", 0) == {}
    assert caplog.records == []


def document(**changes: Any) -> str:
    return json.dumps({"format": FORMAT, "saved": 0, "names": {"a": [["192.0.2.1", 5, 5]]}} | changes)


DAMAGED = [
    "",
    "{",
    "[]",
    "7",
    "\0\0\0",
    "[" * 100_000,
    document(format="other/9"),
    document(saved="soon"),
    document(saved=None, names=7),
    document(saved=float("nan")),
    document(names=[["a"]]),
    document(names={"a": 7}),
    document(names={"a": [["192.0.2.1"]]}),
    document(names={"a": [["nonsense", 5, 5]]}),
    document(names={"a": [["::ffff:192.0.2.1", 5, 5]]}),
    document(names={"a": [[7, 5, 5]]}),
    document(names={"a": [["192.0.2.1", "x", 5]]}),
    document(names={"a": [["192.0.2.1", True, 5]]}),
    document(names={"a": [["192.0.2.1", 5, float("inf")]]}),
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_left_aside_and_said(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "names.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert read(path, 0) == {}
    assert "is left aside" in caplog.text


def test_a_sound_document_is_read() -> None:
    assert json.loads(document())["names"] == {"a": [["192.0.2.1", 5, 5]]}


def test_it_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "names.json"
    victim.write_text("precious")
    (tmp_path / "names.json.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        write(path, {}, 0)
    assert victim.read_text() == "precious"
