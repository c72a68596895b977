"""What `explain --to` names."""

import pytest

from marchproxy.cli.errors import WrongUsage
from marchproxy.cli.goal import Goal, read_goal
from marchproxy.model.errors import InvalidValue


@pytest.mark.parametrize(
    ("text", "port", "goal"),
    [
        ("10.1.0.1", "80", Goal("10.1.0.1", "80")),
        ("web", None, Goal("web")),
        ("fd00::1", None, Goal("fd00::1")),
        ("https://db.example.com/status?x=1", None, Goal("db.example.com", "443", "/status", "x=1")),
        ("http://db.example.com/", None, Goal("db.example.com", "80")),
        ("ws://10.1.0.1:8080", None, Goal("10.1.0.1", "8080")),
        ("wss://[fd00::1]:8443/a", "8443", Goal("fd00::1", "8443", "/a")),
        ("https://user:secret@db.example.com", None, Goal("db.example.com", "443")),
    ],
)
def test_goals(text: str, port: str | None, goal: Goal) -> None:
    assert read_goal(text, port) == goal


@pytest.mark.parametrize("text", ["https://", "ftp://db", "https://db:99999", "https://[fd00", "://db"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(InvalidValue):
        read_goal(text, None)


def test_two_ports_are_one_too_many() -> None:
    with pytest.raises(WrongUsage):
        read_goal("https://db.example.com", "80")
