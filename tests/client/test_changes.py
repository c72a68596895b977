"""Changes as rows, and what they are about."""

from marchproxy.client.changes import action, headline, row, steps, summary
from marchproxy.model.change import Change, Kind

ADDED = Change(Kind.INTERFACE, "", "eth0", None, {"name": "eth0", "role": "inside"})
CHANGED = Change(
    Kind.SERVICE,
    "default",
    "web",
    {"name": "web", "addresses": ["10.0.0.1"], "port": 80},
    {"name": "web", "addresses": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "tls": True},
)
REMOVED = Change(Kind.MAPPING, "lab", "m", {"name": "m", "description": "x\x1b[31m"}, None)


def test_actions() -> None:
    assert [action(change) for change in (ADDED, CHANGED, REMOVED)] == ["add", "change", "remove"]
    assert summary([ADDED, CHANGED, REMOVED, ADDED]) == "2 added, 1 changed, 1 removed"
    assert summary([REMOVED]) == "1 removed"


def test_rows_have_the_same_keys() -> None:
    assert row(ADDED) == {
        "action": "add",
        "kind": "interface",
        "cluster": "",
        "name": "eth0",
        "before": None,
        "after": {"name": "eth0", "role": "inside"},
    }
    assert row(ADDED).keys() == row(REMOVED).keys()


def test_words() -> None:
    assert [headline(change) for change in (ADDED, CHANGED, REMOVED)] == [
        "interface eth0",
        "service web",
        "mapping lab/m",
    ]
    assert headline(Change(Kind.SETTINGS, "", "settings", {}, {})) == "settings"
    assert list(steps(ADDED)) == ["role: inside"]
