"""Changing the store, and telling the daemon."""

from collections.abc import Callable

import pytest

from marchproxy.cli import intent
from marchproxy.cli.errors import Declined, ExitCode, WrongUsage
from marchproxy.model.documents import read_service
from marchproxy.model.snapshot import Cluster, Snapshot
from tests.cli.console import Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

WEB = read_service({"name": "web", "addresses": ["10.0.0.1"]})
HELD = Snapshot((Cluster("default", (WEB,)),))


def test_a_running_daemon_is_told(site: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/reload": (200, {"revision": 3, "findings": []})})
    result = site.ok("service", "set", "web", "--port", "81", "-v")
    assert server.asked == [("POST /v1/reload", None)]
    assert result.err == "revision 3\nthe daemon has taken over revision 3\n"


def test_without_a_daemon_the_change_stands_and_is_no_failure(site: Console) -> None:
    result = site.ok("service", "set", "web", "--port", "81", "-v")
    assert "takes the revision over when it starts" in result.err


@pytest.mark.parametrize(
    "answer",
    [
        (409, {"error": {"name": "Conflict", "message": "address in use", "hint": "choose another"}}),
        b"garbage\r\n",
    ],
)
def test_a_daemon_that_refuses_makes_it_1_and_the_change_stands(
    site: Console, daemon: Start, answer: tuple[int, object] | bytes
) -> None:
    daemon({"POST /v1/reload": answer})
    result = site("service", "set", "web", "--port", "81")
    assert result.code == 1
    assert "revision 3\nwarning: stored, but not in force: " in result.err
    assert site.ok("service", "show", "web", "--output", "json").json["port"] == 81


def test_a_change_that_fails_tells_nobody(site: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/reload": (200, {"revision": 3})})
    assert site("service", "set", "web", "--port", "0").code == 5
    assert server.asked == []


def test_confirm(console: Console) -> None:
    intent.confirm(console.environment(), "sure", True)
    with pytest.raises(WrongUsage, match="sure: this needs a yes"):
        intent.confirm(console.environment(stdin=b"y\n"), "sure", False)
    for answer in (b"y\n", b"YES \n"):
        intent.confirm(console.environment(stdin=answer, tty=True), "sure", False)
    for answer in (b"n\n", b"\n", b"", b"yep\n"):
        with pytest.raises(Declined):
            intent.confirm(console.environment(stdin=answer, tty=True), "sure", False)


def test_announce_without_a_daemon(console: Console) -> None:
    assert intent.announce(console.environment()) is ExitCode.DONE
