"""`make screenshots`: a picture of each tab of an appliance at work, that asks nobody for anything."""

import re
from pathlib import Path

import pytest

from demo import pictures


@pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "ipv6")
def test_each_tab_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "docs" / "screenshots"
    folder.parent.mkdir()
    monkeypatch.setattr(pictures, "FOLDER", folder)
    monkeypatch.setattr(pictures, "CURVES", 2.5)
    monkeypatch.setattr(pictures, "SETTLING", 1.5)
    assert pictures.main() == 0
    drawn = {path.stem: path.read_text() for path in folder.iterdir()}
    assert drawn.keys() == {*pictures.TABS, "why"}
    for name, wanted in (
        ("overview", "attached"),
        ("flows", "ledger"),
        ("denials", "DENY_MAPPING"),
        ("policy", "guests-stay-out"),
        ("logs", "ready"),
        ("why", "deny"),
    ):
        assert wanted in drawn[name], name
    for text in drawn.values():
        assert re.findall(r"(?:url\(|href=\")[\"']?https?:", text) == []
        assert len(text) < 200_000


def test_pictures_of_the_documentation_are_there() -> None:
    kept = {path.stem for path in pictures.FOLDER.glob("*.svg")}
    assert kept == {*pictures.TABS, "why"}


def test_without_root_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert pictures.main() == 1
    assert "sudo make screenshots" in capsys.readouterr().err
