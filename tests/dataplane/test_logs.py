"""Lines on stderr, for people and for the journal."""

import logging
import os
from pathlib import Path

import pytest

from marchproxy.dataplane import logs


@pytest.fixture(autouse=True)
def logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    root = logging.getLogger("marchproxy")
    for name in ("handlers", "level", "propagate"):
        monkeypatch.setattr(root, name, getattr(root, name))
    return root


def test_people_get_time_level_and_message(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.configure(0)
    logging.getLogger("marchproxy.dataplane.x").info("revision 3 applied")
    logging.getLogger("marchproxy.dataplane.x").debug("not shown")
    line = capsys.readouterr().err
    assert line.endswith(" INFO revision 3 applied\n")
    assert line.count("\n") == 1


def test_more_verbosity_says_everything(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(1)
    logging.getLogger("marchproxy.dataplane.x").debug("shown")
    assert "DEBUG shown" in capsys.readouterr().err


def test_the_journal_gets_priorities(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr("sys.stderr", stream)
        logs.configure(0)
        logging.getLogger("marchproxy.dataplane.x").warning("a\nb")
    assert (tmp_path / "journal").read_text() == "<4>a\n<4>b\n"
