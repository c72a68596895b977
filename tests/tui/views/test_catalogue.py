"""What is configured, looked at and changed."""

from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TabbedContent

from marchproxy.client import edits
from marchproxy.model.change import Kind
from marchproxy.model.documents import read_entity
from marchproxy.model.entities import Service
from marchproxy.model.errors import NotFound
from marchproxy.tui.app import MarchProxyApp
from marchproxy.tui.dialogs.changes import Changes
from marchproxy.tui.dialogs.form import Form
from marchproxy.tui.views.catalogue import Catalogue
from tests.tui.stage import Play, Stage, perform, picture, until


def on_tab(tab: str, stage: Stage, then: Any) -> None:
    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab(tab)
        await until(pilot, lambda: isinstance(app.view, Catalogue) and app.view.table.records)
        assert isinstance(app.view, Catalogue)
        await then(app, app.view, pilot)

    action: Play = play
    perform(stage, action)


def test_mappings_stand_in_the_order_in_which_they_are_tried() -> None:
    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        assert [row["name"] for row in view.table.records] == ["no-ssh", "cw"]
        await until(pilot, lambda: "priority: 10" in picture(app))

    on_tab("policy", Stage(), play)


def test_a_mapping_is_changed_by_way_of_form_and_difference() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        await pilot.press("down", "e")
        await until(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#field-ports", Input).value = "8080"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, Changes))
        assert "ports: - -> 8080" in picture(app)
        assert "Ends 1 of 3 running flows" in picture(app)
        await pilot.press("t")
        await until(pilot, lambda: stage.count("write") == 1)
        assert stage.last("write") == ("set mapping cw", True)
        assert [str(ports) for ports in stage.mapping("cw").ports] == ["8080"]

    on_tab("policy", stage, play)


def test_leaving_changes_nothing() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Form))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Changes))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Changes))
        assert stage.count("write") == 0

    on_tab("policy", stage, play)


def test_a_new_mapping() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, Form))
        for name, text in {
            "name": "new",
            "sources": "clients",
            "destinations": "web",
            "protocols": "tcp",
        }.items():
            app.screen.query_one(f"#field-{name}", Input).value = text
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, Changes))
        await pilot.press("a")
        await until(pilot, lambda: "new" in [row["name"] for row in view.table.records])

    on_tab("policy", stage, play)


def test_a_mapping_is_removed() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Changes))
        await pilot.press("a")
        await until(pilot, lambda: stage.count("write") == 1)
        with pytest.raises(NotFound):
            stage.mapping("no-ssh")

    on_tab("policy", stage, play)


def test_disabled_mappings_have_expired_and_come_back() -> None:
    stage = Stage()

    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        for disabled in (True, False):
            await pilot.press("d")
            await until(pilot, lambda: isinstance(app.screen, Changes))
            await pilot.press("a")
            await until(pilot, lambda: not isinstance(app.screen, Changes))
            await until(
                pilot,
                lambda: (stage.mapping("no-ssh").expires is not None) is disabled,  # noqa: B023
            )
            await until(
                pilot,
                lambda: (view.table.records[0]["entity"].expires is not None) is disabled,  # noqa: B023
            )

    on_tab("policy", stage, play)


def test_services_are_the_next_list() -> None:
    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        await pilot.press("right")
        await until(pilot, lambda: view.query_one(TabbedContent).active == "shelf-service")
        assert [row["name"] for row in view.table.records] == ["clients", "web"]
        await pilot.press("slash", *"10.2.")
        await until(pilot, lambda: [row["name"] for row in view.table.records] == ["web"])

    on_tab("policy", Stage(), play)


def test_lists_change_where_rows_are_wider_than_the_screen() -> None:
    """A table takes ← and → to itself as soon as it can be moved sideways."""
    stage = Stage()
    wide = read_entity(Service, {"name": "n" * 60, "addresses": ["10.9.0.1", "10.9.0.2", "10.9.0.3"]})
    stage.held = edits.put(stage.held, Kind.SERVICE, "default", wide)

    async def play(app: MarchProxyApp, pilot: Pilot[None]) -> None:
        app.action_tab("policy")
        await until(pilot, lambda: isinstance(app.view, Catalogue) and app.view.table.records)
        view = app.view
        assert isinstance(view, Catalogue)
        tabs = view.query_one(TabbedContent)
        await pilot.press("right")
        await until(pilot, lambda: tabs.active == "shelf-service" and view.table.max_scroll_x > 0)
        await pilot.press("shift+right")
        await until(pilot, lambda: view.table.scroll_x > 0)
        await pilot.press("right")
        await until(pilot, lambda: tabs.active == "shelf-mapping")
        await pilot.press("left")
        await until(pilot, lambda: tabs.active == "shelf-service")
        # Who types moves the cursor in what is typed.
        await pilot.press("slash", *"ab", "left", "x")
        await until(pilot, lambda: view.text == "axb")
        assert tabs.active == "shelf-service"

    perform(stage, play, (80, 24))


def test_limits_show_what_they_dropped() -> None:
    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        await pilot.press("left")
        await until(pilot, lambda: view.query_one(TabbedContent).active == "shelf-limit")
        await until(pilot, lambda: [row["dropped_packets"] for row in view.table.records] == [7])

    on_tab("protection", Stage(), play)


def test_who_only_looks_gets_no_form() -> None:
    async def play(app: MarchProxyApp, view: Catalogue, pilot: Pilot[None]) -> None:
        await pilot.press("n", "e", "x", "d", "enter")
        assert not isinstance(app.screen, Form | Changes)

    on_tab("policy", Stage(read_only=True), play)
