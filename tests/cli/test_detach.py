"""`marchproxy detach`."""

from collections.abc import Callable

import pytest

from marchproxy.dataplane.kernel import attach
from tests.cli.console import STATUS, Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was taken out of the kernel; the kernel itself is left alone."""
    removed = ["tc_in program on eth0", "8 maps (v1), with their flows"]
    called: list[str] = []

    def detach_all() -> list[str]:
        called.append("detach_all")
        return removed if len(called) == 1 else []

    monkeypatch.setattr(attach, "detach_all", detach_all)
    return called


def test_what_was_removed_is_the_data(console: Console, calls: list[str]) -> None:
    first, second = console.ok("detach", "--yes"), console.ok("detach", "--yes")
    assert first.out.splitlines() == [
        "removed: tc_in program on eth0",
        "removed: 8 maps (v1), with their flows",
    ]
    assert (second.out, second.err) == ("", "there was nothing to take out\n")


def test_as_a_document(console: Console, calls: list[str]) -> None:
    assert console.ok("detach", "--yes", "--output", "json").json == [
        {"name": "tc_in program on eth0"},
        {"name": "8 maps (v1), with their flows"},
    ]


def test_not_under_a_daemon_that_would_attach_again(
    console: Console, daemon: Start, calls: list[str]
) -> None:
    daemon({"GET /v1/status": (200, STATUS)})
    result = console("detach", "--yes")
    assert result.code == 4
    assert "4711" in result.err
    assert calls == []


def test_beside_a_daemon_that_attaches_nothing(console: Console, daemon: Start, calls: list[str]) -> None:
    daemon({"GET /v1/status": (200, STATUS | {"tier": {"name": "sockets", "reason": "--no-bpf"}})})
    console.ok("detach", "--yes")
    assert calls == ["detach_all"]


@pytest.mark.parametrize(("typed", "code", "called"), [("y\n", 0, 1), ("n\n", 1, 0), ("", 1, 0)])
def test_somebody_at_a_terminal_is_asked(
    console: Console, calls: list[str], typed: str, code: int, called: int
) -> None:
    assert console("detach", stdin=typed, tty=True).code == code
    assert len(calls) == called


def test_a_script_says_yes(console: Console, calls: list[str]) -> None:
    result = console("detach")
    assert (result.code, calls) == (2, [])
    assert "--yes" in result.err
