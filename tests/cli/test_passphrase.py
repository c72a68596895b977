"""Where a passphrase comes from."""

import getpass
from pathlib import Path

import pytest

from marchproxy.cli.errors import Declined, WrongUsage
from marchproxy.cli.passphrase import read_passphrase
from marchproxy.model.errors import InvalidValue
from tests.cli.console import Console


def test_the_first_line_of_a_file(console: Console, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("größer als\r\nno part of it\n")
    assert read_passphrase(console.environment(), str(tmp_path / "file"), twice=True) == "größer als"
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidValue) as refused:
        read_passphrase(console.environment(), str(tmp_path / "binary"), twice=True)
    assert "not UTF-8" in refused.value.hint


def test_a_person_types_a_new_one_twice(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["first", "first", "first", "slip", "once"])
    monkeypatch.setattr(getpass, "getpass", lambda prompt, stream: next(typed))
    environment = console.environment(tty=True)
    assert read_passphrase(environment, None, twice=True) == "first"
    with pytest.raises(Declined, match="not the same"):
        read_passphrase(environment, None, twice=True)
    assert read_passphrase(environment, None, twice=False) == "once"


def test_nobody_is_asked_where_nobody_is(console: Console) -> None:
    with pytest.raises(WrongUsage, match="nobody to ask"):
        read_passphrase(console.environment(), None, twice=True)
