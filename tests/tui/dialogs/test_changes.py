"""What a change would do, before it is written."""

from dataclasses import replace
from typing import Any

from textual.pilot import Pilot

from marchproxy.client import edits
from marchproxy.model.change import Kind
from marchproxy.policy.plan import Finding, Severity
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.changes import Changes
from marchproxy.tui.link import Intended
from tests.tui.stage import Stage, flow, perform, picture, until


def intended(**fields: Any) -> Intended:
    made = Stage().intend("remove mapping cw", lambda held: edits.drop(held, Kind.MAPPING, "default", "cw"))
    return replace(made, **fields)


def shown(what: Intended) -> str:
    pictures: list[str] = []

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.push_screen(Changes(what))
        await until(pilot, lambda: isinstance(app.screen, Changes))
        pictures.append(picture(app))

    perform(Stage(), play)
    return pictures[0]


def test_the_difference_and_the_flows_that_end() -> None:
    cut = {
        "cut": 1,
        "looked_at": 3,
        "complete": True,
        "unresolved": ["db.example.com"],
        "flows": [{**flow(1), "cut_reason": "NO_MAPPING", "cut_by": ""}],
    }
    text = shown(intended(cut=cut))
    assert "- mapping cw" in text
    assert "listen: 10.1.0.1:80" in text
    assert "Ends 1 of 3 running flows." in text
    assert "10.1.0.2:40001 → 10.2.0.10:80  NO_MAPPING" in text
    assert "Not resolved yet" in text


def test_warnings_and_a_daemon_that_does_not_say() -> None:
    finding = Finding(Severity.WARNING, "mapping cw", "is never tried")
    text = shown(intended(cut=None, warnings=(finding,) * 10))
    assert "! mapping cw: is never tried" in text
    assert "! and 2 more" in text
    assert "is not known" in text


def test_nothing_to_apply_where_nothing_changes() -> None:
    text = shown(intended(changes=()))
    assert "This changes nothing." in text
    assert "Apply" not in text
