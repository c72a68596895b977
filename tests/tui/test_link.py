"""The way to daemon and store."""

from collections.abc import Callable

import pytest

from marchproxy.client import edits
from marchproxy.client.errors import InvalidPolicy
from marchproxy.model.change import Kind
from marchproxy.model.documents import read_mapping, read_service
from marchproxy.model.errors import DaemonNotRunning, NotPermitted
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.store import Store
from marchproxy.tui.link import TRIAL, Link, Page
from tests.cli.console import STATUS, Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

OTHER = read_service({"name": "other", "addresses": ["10.0.0.2"]})
SSH = read_mapping(
    {"name": "ssh", "sources": ["clients"], "destinations": ["web"], "protocols": ["tcp"], "listen": "*:22"}
)


def add_other(held: Snapshot) -> Snapshot:
    return edits.put(held, Kind.SERVICE, "default", OTHER)


def head(site: Console) -> int:
    with Store.open(site.environment().state_dir, read_only=True) as store:
        return store.head().number


def test_facts_come_from_the_control_socket(site: Console, daemon: Start) -> None:
    server = daemon(
        {
            "GET /v1/status": (200, STATUS),
            "GET /v1/flows": (200, [{"id": 1}]),
            "GET /v1/top": (200, {"by": "service", "rows": [], "total": 7, "seconds": 1.0}),
            "POST /v1/explain": (200, {"verdict": "deny"}),
            "POST /v1/flows/cut": (200, {"cut": 1, "unknown": []}),
            "GET /v1/events": b'HTTP/1.1 200 OK\r\n\r\n\n{"kind": "denied"}\n',
        }
    )
    link = Link(site.environment())
    assert link.status()["pid"] == STATUS["pid"]
    assert link.flows(sort="-bytes", limit=5) == Page([{"id": 1}], 1)
    assert link.top("service", "bytes", 3) == Page([], 7)
    assert link.explain({"source": "10.0.0.1"}) == {"verdict": "deny"}
    assert link.cut([1]) == 1
    assert list(link.events(["denied", "backend"])) == [{"kind": "denied"}]
    assert [asked for asked, _ in server.asked][1::4] == [
        "GET /v1/flows?sort=-bytes&limit=5",
        "GET /v1/events?kind=denied%2Cbackend",
    ]


def test_who_is_refused_is_asked_for_by_a_parameter_that_only_this_question_has(
    site: Console, daemon: Start
) -> None:
    server = daemon({"GET /v1/top": (200, {"by": "source", "rows": [], "total": 0, "seconds": 1.0})})
    link = Link(site.environment())
    link.top("source", "packets", 3)
    link.top("source", "packets", 3, denied=True)
    assert [asked for asked, _ in server.asked] == [
        "GET /v1/top?by=source&sort=packets&limit=3",
        "GET /v1/top?by=source&sort=packets&limit=3&denied=1",
    ]


def test_what_is_meant_is_not_written_before_it_is_said(site: Console, daemon: Start) -> None:
    cut = {"cut": 2, "looked_at": 3, "complete": True, "unresolved": [], "flows": []}
    server = daemon({"POST /v1/preview": (200, cut), "POST /v1/reload": (200, {"revision": 3})})
    link = Link(site.environment())
    before = head(site)
    intended = link.intend("add other", add_other)
    assert head(site) == before
    assert [change.name for change in intended.changes] == ["other"]
    assert intended.cut == cut
    assert server.asked[-1][1]["changes"][0]["name"] == "other"
    written = link.write(intended, on_trial=False)
    assert (written.number, written.changed, written.problem) == (before + 1, True, "")
    held = link.snapshot(before)
    assert held is not None
    assert (held[0], held[1].clusters[0].services[1]) == (before + 1, OTHER)
    assert link.snapshot(before + 1) is None
    assert link.revisions(1)[0].message == "add other"


def test_without_a_daemon_changes_are_stored_and_nothing_can_be_tried(site: Console) -> None:
    link = Link(site.environment())
    intended = link.intend("add other", add_other)
    assert intended.cut is None
    before = head(site)
    with pytest.raises(DaemonNotRunning):
        link.write(intended, on_trial=True)
    assert head(site) == before
    assert link.write(intended, on_trial=False).number == before + 1


def test_a_trial_goes_back_unless_it_is_confirmed(site: Console, daemon: Start) -> None:
    daemon(
        {
            "GET /v1/status": (200, STATUS),
            "POST /v1/reload": (200, {"revision": 3}),
            "POST /v1/preview": (409, {}),
        }
    )
    link = Link(site.environment())
    written = link.write(link.intend("add other", add_other), on_trial=True)
    with Store.open(site.environment().state_dir, read_only=True) as store:
        trial = store.trial()
    assert trial is not None
    assert (trial.revision, trial.seconds) == (written.number, TRIAL)
    assert link.confirm() == written.number


def test_a_revision_that_the_daemon_refuses_is_said(site: Console, daemon: Start) -> None:
    refused = {"error": {"name": "Conflict", "message": "port 80 is taken", "hint": ""}}
    daemon({"POST /v1/reload": (409, refused), "POST /v1/preview": (409, refused)})
    link = Link(site.environment())
    assert link.write(link.intend("add other", add_other), on_trial=False).problem == "port 80 is taken"


def test_what_contradicts_itself_is_not_even_shown(site: Console) -> None:
    with pytest.raises(InvalidPolicy, match="mapping ssh"):
        Link(site.environment()).intend("ssh", lambda held: edits.put(held, Kind.MAPPING, "default", SSH))


def test_a_session_that_only_looks_writes_nothing(site: Console) -> None:
    link = Link(site.environment(), read_only=True)
    for act in (lambda: link.cut([1]), lambda: link.intend("add other", add_other), link.confirm):
        with pytest.raises(NotPermitted):
            act()
