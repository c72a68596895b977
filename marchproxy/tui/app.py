"""The screen: a line about the appliance, tabs, one of them shown, and the keys below."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from textual import on, work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Footer, Static, Tab, Tabs

from marchproxy.client.units import duration
from marchproxy.client.words import printable
from marchproxy.model.errors import MarchproxyError
from marchproxy.tui.dialogs.changes import Changes
from marchproxy.tui.dialogs.keys import Keys
from marchproxy.tui.dialogs.why import Why, question_of
from marchproxy.tui.facts import History
from marchproxy.tui.link import Build, Intended, Link, Written
from marchproxy.tui.pace import Pace
from marchproxy.tui.themes import DARK, LIGHT
from marchproxy.tui.views.catalogue import Policy, Protection
from marchproxy.tui.views.denials import Denials
from marchproxy.tui.views.events import Events
from marchproxy.tui.views.flows import Flows
from marchproxy.tui.views.logs import Logs
from marchproxy.tui.views.overview import Overview
from marchproxy.tui.views.top import Top
from marchproxy.tui.views.view import View
from marchproxy.tui.words import Row, counted

EVERY = 1.0
"""Seconds between two looks at the status."""
_VIEWS: tuple[type[View], ...] = (Overview, Flows, Top, Denials, Policy, Protection, Events, Logs)


class MarchProxyApp(App[None]):
    """`marchproxy tui`."""

    TITLE = "MarchProxy"
    CSS_PATH = "style.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012  (App has an instance variable)
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"tab('{view.TITLE.lower()}')", view.TITLE, show=False)
            for number, view in enumerate(_VIEWS, start=1)
        ),
        Binding("c", "confirm", "Confirm", tooltip="Keep the change on trial"),
        Binding("question_mark", "keys", "Keys", key_display="?", tooltip="All keys that work here"),
        Binding(
            "t", "theme", "Light/dark", show=False, tooltip="Change between the dark and the light theme"
        ),
        Binding("q", "quit", "Quit", tooltip="Leave; the daemon goes on"),
    ]

    status: reactive[Row | None] = reactive(None)
    lost: reactive[MarchproxyError | None] = reactive(None)
    """Why the daemon does not answer."""

    def __init__(self, link: Link, *, light: bool = False, pace: Pace | None = None) -> None:
        super().__init__()
        self.link = link
        self.pace = pace or Pace()
        self.history = History()
        self._asking = False
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = LIGHT.name if light else DARK.name
        # Each step of an animation is a screenful over a slow line.
        self.animation_level = "none"

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static("…", id="headline", markup=False)
        yield Static("", id="banner", markup=False)
        yield Tabs(
            *(Tab(f"{number} {view.TITLE}", id=f"tab-{view.TITLE.lower()}") for number, view in _numbered())
        )
        with ContentSwitcher(initial="overview"):
            for view in _VIEWS:
                yield view(id=view.TITLE.lower())
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Look at the daemon from now on."""
        self.query_one("#banner").display = False
        self.query_one(Tabs).can_focus = False
        self.set_interval(EVERY, self._turn)
        self._look()

    def _turn(self) -> None:
        if self.pace.turn(None):
            self._look()

    @property
    def view(self) -> View:
        """The tab that is shown."""
        return self.query_one(f"#{self.query_one(ContentSwitcher).current}", View)

    @on(Tabs.TabActivated)
    def tab_activated(self, event: Tabs.TabActivated) -> None:
        """Show the tab, and have it ask at once."""
        self.query_one(ContentSwitcher).current = str(event.tab.id).removeprefix("tab-")
        if self.status is not None:
            self.view.present_status(self.status)
        self.view.tick()
        self.view.focus_content()
        self.refresh_bindings()

    def action_tab(self, name: str) -> None:
        """Go to a tab."""
        self.query_one(Tabs).active = f"tab-{name}"

    def action_theme(self) -> None:
        """Light or dark."""
        self.theme = DARK.name if self.theme == LIGHT.name else LIGHT.name

    def action_keys(self) -> None:
        """All keys that work here."""
        self.push_screen(Keys(list(self.screen.active_bindings.values())))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """`confirm` is there while something is on trial."""
        if action == "confirm":
            return bool(self.status and self.status["trial"])
        return super().check_action(action, parameters)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: tabs and themes beside what Textual offers."""
        yield from super().get_system_commands(screen)
        for view in _VIEWS:
            name = view.TITLE.lower()
            yield SystemCommand(view.TITLE, f"Show {name}", lambda name=name: self.action_tab(name))

    def action_why(self) -> None:
        """Explain the row under the cursor."""
        table = getattr(self.view, "table", None)
        row = table.record if table else None
        if row is None or not row.get("source"):
            return
        record = row
        self.do(
            lambda: self.link.explain(question_of(record)),
            lambda answer: self.push_screen(Why(record, answer)),
        )

    def action_confirm(self) -> None:
        """Keep the revision on trial."""
        self.do(self.link.confirm, lambda number: self.notify(f"revision {number} stays"))

    def change(self, message: str, build: Build) -> None:
        """Show what a change would do, and write it if that is meant."""

        def shown(intended: Intended) -> None:
            def answered(how: str | None) -> None:
                if how:
                    trial = how == "trial"
                    self.do(lambda: self.link.write(intended, on_trial=trial), self._written)

            self.push_screen(Changes(intended), answered)

        self.do(lambda: self.link.intend(message, build), shown)

    @work(group="do", exit_on_error=False)
    async def do[T](self, work: Callable[[], T], then: Callable[[T], object]) -> None:
        """Do what takes a moment in a thread, and go on with what it returns."""
        try:
            result = await asyncio.to_thread(work)
        except MarchproxyError as error:
            self.complain(error)
            return
        then(result)

    def complain(self, error: MarchproxyError) -> None:
        """Say what went wrong, and what helps."""
        text = printable(error.message) + (f"\n{printable(error.hint)}" if error.hint else "")
        self.notify(text, title="✗ error", severity="error", timeout=10, markup=False)

    def watch_status(self, before: Row | None, status: Row | None) -> None:
        """Everything that shows it."""
        if status is None:
            return
        self._say()
        self.view.present_status(status)
        # The footer is made anew by this: not every second.
        if bool(before and before["trial"]) != bool(status["trial"]):
            self.refresh_bindings()

    def watch_lost(self) -> None:
        """The banner comes and goes."""
        self._say()

    @work(exit_on_error=False)
    async def _look(self) -> None:
        if self._asking:
            return
        self._asking = True
        try:
            status = await asyncio.to_thread(self.link.status)
        except MarchproxyError as error:
            self.lost = error
        else:
            self.history.add(status, time.monotonic())
            self.lost = None
            self.status = status
        finally:
            self._asking = False

    def _written(self, written: Written) -> None:
        if not written.changed:
            self.notify(f"nothing to change: revision {written.number} stays")
        elif written.problem:
            text = f"revision {written.number} is stored, but not in force: {printable(written.problem)}"
            self.notify(text, title="! warning", severity="warning", timeout=10, markup=False)
        elif written.in_force:
            self.notify(f"revision {written.number} is in force")
        else:
            self.notify(f"revision {written.number} is stored: a daemon takes it over when it starts")
        self.view.refresh_now()
        self._look()

    def _say(self) -> None:
        status, banner = self.status, self.query_one("#banner", Static)
        if status is not None:
            self.query_one("#headline", Static).update(_headline(status, self.link.read_only))
        text = ""
        if self.lost is not None:
            # The path of a socket, which may be long, last: a narrow screen cuts there.
            text = f"✗ what is shown is old; it goes on by itself: {printable(self.lost.message)}"
        elif status and status["trial"]:
            trial = status["trial"]
            left = f"{trial['remaining_s']:.0f} s"
            text = f"! revision {trial['revision']} goes back to {trial['previous']} in {left}: c keeps it"
        banner.update(text)
        banner.display = bool(text)
        banner.set_class(self.lost is not None, "-lost")


def _numbered() -> Iterable[tuple[int, type[View]]]:
    return enumerate(_VIEWS, start=1)


def _headline(status: Row, read_only: bool) -> str:
    health = "✓ serving" if status["healthy"] else f"✗ {counted(len(status['problems']), 'problem')}"
    parts = [
        f"MarchProxy {status['version']}",
        health,
        f"revision {status['revision']['number']}",
        f"tier {status['tier']['name']}",
        f"up {duration(status['uptime_s'])}",
    ]
    return "   ".join([*parts, "read-only"] if read_only else parts)
