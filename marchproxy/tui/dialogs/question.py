"""A question with yes and no."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Button, Static

from marchproxy.tui.dialogs.dialog import Dialog


class Question(Dialog[bool]):
    """True: yes. The keyboard begins at no."""

    AUTO_FOCUS = "#no"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n", "answer(False)", "No"),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__(title)
        self._text = text

    def content(self) -> ComposeResult:
        """What it means, and two buttons."""
        yield Static(self._text, markup=False)
        with Horizontal(classes="buttons"):
            yield Button("No", id="no", variant="primary")
            yield Button("Yes", id="yes")

    def action_answer(self, yes: bool) -> None:
        """Close with an answer."""
        self.dismiss(yes)

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        """The same with the mouse, or Enter."""
        self.dismiss(event.button.id == "yes")
