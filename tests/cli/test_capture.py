"""`marchproxy capture`, with a daemon that has one ready. Real packets: tests/namespace/test_capture.py."""

from collections.abc import Callable
from pathlib import Path

from marchproxy.dataplane.capture.pcapng import Writer
from tests.cli.console import Answers, Console, Daemon, chunked
from tests.dataplane.capture.invented import FORWARDED, NOON, REFUSED

type Start = Callable[[Answers], Daemon]


def blocks(missed: int = 0) -> list[bytes]:
    writer = Writer("marchproxy", "", 64)
    begin = writer.begin(["inside0"])
    return [begin, writer.packet(FORWARDED), writer.packet(REFUSED), writer.end(NOON, missed)]


def test_file_is_what_the_daemon_sends(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/capture": chunked(*blocks())})
    file = console.folder / "some.pcapng"
    result = console("capture", "--write", str(file))
    assert (result.code, result.out) == (0, "")
    assert file.read_bytes() == b"".join(blocks())
    assert result.err == f"2 packets, {file.stat().st_size} B\n"


def test_flags_become_parameters(console: Console, daemon: Start) -> None:
    started = daemon({"GET /v1/capture": chunked(*blocks())})
    words = "--denied --source 10.0.0.0/8 --port 443 --duration 2m --size 5M --packets 7 --rate 9 --snap 128"
    console.ok("capture", "--write", str(console.folder / "f"), *words.split())
    ((asked, _),) = started.asked
    assert set(asked.partition("?")[2].split("&")) == {
        "denied=1",
        "source=10.0.0.0%2F8",
        "port=443",
        "duration=120",
        "size=5000000",
        "packets=7",
        "rate=9",
        "snap=128",
    }


def test_what_was_missed_is_said(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/capture": chunked(*blocks(missed=12))})
    result = console("capture", "--write", str(console.folder / "f"))
    assert "warning: 12 more came faster than --rate, or found no room" in result.err


def test_whole_packets_of_a_daemon_that_died_are_kept(console: Console, daemon: Start) -> None:
    begin, first, second, _ = blocks()
    daemon({"GET /v1/capture": chunked(begin, first, second[:20]).removesuffix(b"0\r\n\r\n")})
    file = console.folder / "some.pcapng"
    result = console("capture", "--write", str(file))
    assert result.code == 6
    assert file.read_bytes() == b"".join(blocks()[:2])
    assert "the daemon ended the conversation" in result.err


def test_an_existing_file_is_left_alone(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/capture": chunked(*blocks())})
    name = console.write("precious", "data")
    result = console("capture", "--write", name)
    assert result.code == 4
    assert "precious exists already" in result.err
    assert Path(name).read_text() == "data"


def test_what_the_daemon_refuses_leaves_no_file(console: Console, daemon: Start) -> None:
    error = {"error": {"name": "NotFound", "message": "mapping 'x' does not exist", "hint": ""}}
    daemon({"GET /v1/capture": (404, error)})
    file = console.folder / "none"
    assert console("capture", "--write", str(file), "--mapping", "x").code == 3
    assert not file.exists()


def test_without_a_daemon(console: Console) -> None:
    assert console("capture", "--write", str(console.folder / "f")).code == 6
    assert not (console.folder / "f").exists()


def test_a_terminal_cannot_show_packets(console: Console) -> None:
    result = console("capture", tty=True)
    assert result.code == 2
    assert "a terminal cannot show packets" in result.err


def test_values_that_cannot_be_meant(console: Console) -> None:
    assert console("capture", "--size", "huge").code == 5
    assert console("capture", "--duration", "soon").code == 5
    assert console("capture", "--duration", "0s").code == 5
    assert console("capture", "--size", "0").code == 5
    assert console("capture", "--snap", "1").code == 2
    assert console("capture", "--rate", "1000000").code == 2
