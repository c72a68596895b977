"""What comes by itself, the newest on top."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.widgets import Label

from marchproxy.model.errors import MarchproxyError
from marchproxy.tui.table import Column, LiveTable
from marchproxy.tui.views.view import Browser, occurs
from marchproxy.tui.words import Row

_PAUSE = 2.0
"""Seconds until a daemon that has ended is asked again."""


class _Listener(threading.Thread):
    """Hands rows on until it is over. What it waits for may never come, so nobody waits for its end."""

    def __init__(self, name: str, ask: Callable[[], Iterator[Row]], heard: Callable[[Row], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.over = threading.Event()
        self._ask = ask
        self._heard = heard

    def run(self) -> None:
        """Listen, and again where the daemon has ended."""
        while not self.over.is_set():
            try:
                for row in self._ask():
                    if self.over.is_set():
                        return
                    self._heard(row)
            except MarchproxyError:
                pass  # The banner says so.
            self.over.wait(_PAUSE)


class Stream(Browser):
    """A tab that is told what happens, from when it is first looked at."""

    KEPT: ClassVar[int] = 500
    """Rows that can be scrolled back to."""
    COLUMNS: ClassVar[Sequence[Column]] = ()

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._kept: deque[Row] = deque(maxlen=self.KEPT)
        self._fresh = False
        self._listener: _Listener | None = None

    def compose(self) -> ComposeResult:
        """A line of state, the filter while it is used, the table."""
        yield Label("", id=f"{self.id}-state", classes="state", markup=False)
        yield self.make_filter()
        yield LiveTable(self.COLUMNS, self.key, id=f"{self.id}-table")

    @property
    def table(self) -> LiveTable:
        """The rows."""
        return self.query_one(LiveTable)

    def key(self, row: Row) -> str:
        """What no other row has."""
        raise NotImplementedError

    def asking(self) -> Callable[[], Iterator[Row]]:
        """How the daemon is asked for what is wanted now; called in a thread."""
        raise NotImplementedError

    def completed(self, row: Row) -> Row:
        """A row with all that columns and filter look at; in the listener's thread."""
        raise NotImplementedError

    def what(self) -> str:
        """What is listened to."""
        raise NotImplementedError

    def tick(self) -> None:
        """Begin to listen once somebody looks; then show what came."""
        if self._listener is None and self.shown:
            self.listen()
            self.say()
        if self.shown and self._fresh and not self.frozen:
            self._show()

    def refresh_now(self) -> None:
        """Show what is kept."""
        self._show()

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        if self._listener is not None:
            self._listener.over.set()

    def listen(self) -> None:
        """From now on to what is wanted now; whoever listened to something else is heard no more."""
        if self._listener is not None:
            self._listener.over.set()
        self._listener = _Listener(str(self.id), self.asking(), self._heard)
        self._listener.start()

    def forget(self) -> None:
        """Keep nothing of what came."""
        self._kept = deque(maxlen=self.KEPT)
        self._fresh = True

    def _heard(self, row: Row) -> None:
        """In the listener's thread."""
        self._kept.appendleft(self.completed(row))
        self._fresh = True

    def _show(self) -> None:
        self._fresh = False
        self.table.show([row for row in tuple(self._kept) if occurs(self.text, row)])
        self.say()

    def say(self) -> None:
        """What is listened to."""
        self.query_one(f"#{self.id}-state", Label).update("  ".join([self.what(), *self.said_of_all()]))
