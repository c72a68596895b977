"""What every tab does: ask in a thread while it is looked at, and show what comes."""

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.timer import Timer
from textual.widgets import ContentSwitcher, Input

from marchproxy.model.errors import DaemonNotRunning, MarchproxyError
from marchproxy.tui.link import Link
from marchproxy.tui.table import LiveTable
from marchproxy.tui.words import Row

if TYPE_CHECKING:
    from marchproxy.tui.app import MarchProxyApp


class View(Vertical):
    """One tab."""

    TITLE: ClassVar[str] = ""
    EVERY: ClassVar[float] = 1.0
    """Seconds between two questions."""
    WRITING: ClassVar[frozenset[str]] = frozenset()
    """Actions that a session which only looks does not have."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.frozen = False
        """Nothing new is shown meanwhile."""
        self._asking = False
        self._complaint = ""

    @property
    def house(self) -> "MarchProxyApp":
        """The application."""
        return cast("MarchProxyApp", self.app)

    @property
    def link(self) -> Link:
        """The way to daemon and store."""
        return self.house.link

    @property
    def shown(self) -> bool:
        """Whether somebody looks. The switcher hides the other tabs only once it is mounted itself."""
        parent = self.parent
        return self.display and not (isinstance(parent, ContentSwitcher) and parent.current != self.id)

    def on_mount(self) -> None:
        """Begin to ask."""
        self.set_interval(self.EVERY, self._turn)

    def _turn(self) -> None:
        if self.house.pace.turn(self.id):
            self.tick()

    def tick(self) -> None:
        """Ask, unless nobody looks or the last question is not answered yet."""
        if self.shown and not self.frozen and not self._asking:
            self._asking = True
            self._ask()

    def refresh_now(self) -> None:
        """Ask as soon as possible, because what is asked for has changed."""
        frozen, self.frozen = self.frozen, False
        self.tick()
        self.frozen = frozen

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether there is such an action now."""
        return not (self.link.read_only and action in self.WRITING)

    def focus_content(self) -> None:
        """Take the keyboard."""
        raise NotImplementedError

    def fetch(self) -> Any:
        """What to show; runs in a thread. Raises `MarchproxyError`."""
        return None

    def present(self, answer: Any) -> None:
        """Show what `fetch` found."""

    def present_status(self, status: Row) -> None:
        """Show what concerns this tab of the status that everybody shares."""

    @work(exit_on_error=False)
    async def _ask(self) -> None:
        try:
            answer = await asyncio.to_thread(self.fetch)
        except DaemonNotRunning:
            pass  # The banner says so.
        except MarchproxyError as error:
            if error.message != self._complaint:
                self._complaint = error.message
                self.house.complain(error)
        else:
            self._complaint = ""
            if self.is_attached:
                self.present(answer)
        finally:
            self._asking = False


class Browser(View):
    """A tab with a table, and a filter that narrows it while it is typed."""

    PAUSE: ClassVar[float] = 0.0
    """Seconds without another key after which the filter's text is used: each time that the daemon is asked
    may be a walk over a million flows.
    """
    SIDEWAYS: ClassVar[frozenset[str]] = frozenset()
    """Actions of ← and →. Their bindings have priority: a table whose rows are wider than the screen would
    take the keys, and has shift with them instead.
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", tooltip="Show only what this text occurs in"),
        Binding("escape", "unfilter", "All again", show=False, tooltip="Show everything again"),
    ]

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.text = ""
        self._narrowing: Timer | None = None

    @property
    def table(self) -> LiveTable:
        """The rows that the cursor is in."""
        raise NotImplementedError

    @property
    def filter(self) -> Input:
        """Hidden while it is empty and nobody types."""
        return self.query_one(".filter", Input)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether there is such an action now: whoever types moves the cursor in what is typed."""
        if action in self.SIDEWAYS and isinstance(self.screen.focused, Input):
            return False
        if action == "unfilter":
            return bool(self.filter.display)
        return super().check_action(action, parameters)

    def make_filter(self) -> Input:
        """For `compose`."""
        field = Input(placeholder="address, service, mapping, reason, or any other text", classes="filter")
        field.display = False
        return field

    def focus_content(self) -> None:
        """The rows."""
        self.table.focus()

    def narrow(self) -> None:
        """The filter's text is another."""
        self.refresh_now()

    def action_filter(self) -> None:
        """Type a text that has to occur."""
        self.filter.display = True
        self.filter.focus()

    def action_unfilter(self) -> None:
        """Back to the rows, all of them."""
        self.filter.value = ""
        self.filter_done()

    @on(Input.Changed, ".filter")
    def filter_changed(self) -> None:
        """Filter as it is typed."""
        if self._narrowing is not None:
            self._narrowing.stop()
            self._narrowing = None
        if self.PAUSE:
            self._narrowing = self.set_timer(self.PAUSE, self._use_filter)
        else:
            self._use_filter()

    def _use_filter(self) -> None:
        self.text = self.filter.value.strip()
        self.narrow()

    @on(Input.Submitted, ".filter")
    def filter_done(self) -> None:
        """Back to the rows; an empty filter goes away."""
        self.filter.display = bool(self.filter.value.strip())
        self.table.focus()

    def action_freeze(self) -> None:
        """Stop, or go on."""
        self.frozen = not self.frozen
        self.say()
        self.tick()

    def say(self) -> None:
        """Say in the line of state what is shown."""

    def said_of_all(self) -> list[str]:
        """What every line of state ends with."""
        return [
            *([f"with “{self.text}”"] if self.text else []),
            *(["FROZEN: space goes on"] if self.frozen else []),
        ]


FREEZE = Binding("space", "freeze", "Freeze", tooltip="Keep the rows as they are; again to go on")
WHY = Binding("w", "app.why", "Why", tooltip="Explain which mapping decides, and how")


def occurs(text: str, row: Row) -> bool:
    """Whether a text is in one of the row's values; an empty one always is."""
    wanted = text.casefold()
    return not wanted or any(wanted in str(value).casefold() for value in row.values())
