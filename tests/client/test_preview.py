"""Which running flows a change would end."""

from collections.abc import Callable

import pytest

from marchproxy.client.control import Control
from marchproxy.client.errors import Refused
from marchproxy.client.preview import foresee
from tests.cli.console import Answers, Console, Daemon
from tests.client.test_changes import ADDED

type Start = Callable[[Answers], Daemon]


def test_the_daemon_is_asked_with_the_changes_and_what_they_start_from(
    console: Console, daemon: Start
) -> None:
    server = daemon({"POST /v1/preview": (200, {"cut": 1})})
    control = Control(console.environment())
    assert foresee(control, "ab", [ADDED]) == {"cut": 1}
    [(_, body)] = server.asked
    assert (body["sha256"], body["changes"][0]["name"]) == ("ab", "eth0")
    assert foresee(control, "ab", [])["cut"] == 0
    assert len(server.asked) == 1


def test_a_refusal_is_the_callers(console: Console, daemon: Start) -> None:
    daemon({"POST /v1/preview": (409, {"error": {"name": "Conflict", "message": "another", "hint": ""}})})
    with pytest.raises(Refused, match="another"):
        foresee(Control(console.environment()), "ab", [ADDED])
