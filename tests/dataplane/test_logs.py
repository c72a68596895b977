"""Lines on stderr, for people and for the journal."""

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marchproxy.dataplane import logs
from tests.dataplane.loops import PATIENCE


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
        monkeypatch.setattr(logs, "JOURNAL", tmp_path / "nowhere")
        logs.configure(0)
        logging.getLogger("marchproxy.dataplane.x").warning("a\nb")
    assert (tmp_path / "journal").read_text() == "<4>a\n<4>b\n"


def test_programs_get_an_object_a_line_with_the_flow(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    logs.configure(0, logs.LogFormat.JSON)
    logging.getLogger("marchproxy.dataplane.x").warning("no handoff\nof %d", 7, extra={"flow": 7})
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("marchproxy.dataplane.x").exception("it failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "marchproxy.dataplane.x",
        "message": "no handoff\nof 7",
        "flow": 7,
    }
    assert "ValueError: broken" in second["exception"]


@contextmanager
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A journal: its socket, and a stderr that systemd opened."""
    path = tmp_path / "socket"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
        (tmp_path / "stderr").open("w") as stream,
    ):
        server.bind(str(path))
        server.settimeout(PATIENCE)
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr(logs, "JOURNAL", path)
        yield server


def entry(raw: bytes) -> dict[str, str]:
    """The fields of one entry in the native protocol's binary form."""
    found = {}
    while raw:
        name, _, rest = raw.partition(b"\n")
        size = int.from_bytes(rest[:8], "little")
        found[name.decode()] = rest[8 : 8 + size].decode()
        assert rest[8 + size : 9 + size] == b"\n"
        raw = rest[9 + size :]
    return found


def test_the_journal_gets_fields(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal(tmp_path, monkeypatch) as server:
        logs.configure(0)
        logging.getLogger("marchproxy.dataplane.x").error("two\nlines", extra={"flow": 4711})
        found = entry(server.recv(65536))
    assert found.pop("CODE_FILE").endswith("test_logs.py")
    assert int(found.pop("CODE_LINE")) > 0
    assert found == {
        "MESSAGE": "two\nlines",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "marchproxy",
        "LOGGER": "marchproxy.dataplane.x",
        "MARCHPROXY_FLOW": "4711",
    }
    for handler in logger.handlers:
        handler.close()


def test_a_journal_that_does_not_read_stops_nobody(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal(tmp_path, monkeypatch):
        logs.configure(0)
        for _ in range(5000):
            logging.getLogger("marchproxy.dataplane.x").info("x" * 1000)
    logging.getLogger("marchproxy.dataplane.x").info("gone")
    for handler in logger.handlers:
        handler.close()


def test_who_listens_hears_everything_and_stderr_what_it_did(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logs.configure(0)
    listener = Listener()
    logs.listen(listener)
    logging.getLogger("marchproxy.dataplane.x").debug("small")
    logging.getLogger("marchproxy.dataplane.x").info("large")
    logs.unlisten(listener)
    logging.getLogger("marchproxy.dataplane.x").info("later")
    assert heard == ["small", "large"]
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == ["large", "later"]
    assert not logging.getLogger("marchproxy.dataplane.x").isEnabledFor(logging.DEBUG)
