"""What every dialog has: a frame with a title, and a way out."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer


class Dialog[T](ModalScreen[T]):
    """A frame over the tab; what it returns is None where it was left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Back", tooltip="Leave everything as it is")
    ]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        """The frame around `content`."""
        with VerticalScroll(classes="dialog") as frame:
            frame.border_title = Text(self._title)
            yield from self.content()
        yield Footer(show_command_palette=False)

    def content(self) -> ComposeResult:
        """What stands in the frame."""
        yield from ()

    def action_leave(self) -> None:
        """Close without an answer."""
        self.dismiss(None)
