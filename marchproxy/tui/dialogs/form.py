"""A form for one entity, checked as it is typed."""

from collections.abc import Iterator
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Label, Select

from marchproxy.client.words import printable
from marchproxy.model.change import Kind
from marchproxy.model.documents import Document, Entity
from marchproxy.model.errors import InvalidValue
from marchproxy.tui.dialogs.dialog import Dialog
from marchproxy.tui.forms import FIELDS, Field, complaint, read_form


class Form(Dialog[Entity]):
    """Returns the entity as it is meant. `fixed`: its name stays."""

    AUTO_FOCUS = "Input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Review", priority=True, tooltip="See what it would change"),
        Binding("down", "app.focus_next", "Next line", show=False),
        Binding("up", "app.focus_previous", "Line before", show=False),
    ]

    def __init__(self, title: str, kind: Kind, document: Document, *, fixed: bool) -> None:
        super().__init__(title)
        self._kind = kind
        self._document = document
        self._fixed = fixed

    def content(self) -> ComposeResult:
        """A line for each field, what is wrong below it, and a button."""
        for field in FIELDS[self._kind]:
            with Vertical(classes="field"):
                with Horizontal(classes="line"):
                    yield Label(field.label, classes="label")
                    yield from self._widget(field)
                yield Label("", id=f"wrong-{field.name}", classes="wrong", markup=False)
        yield Label("", id="wrong", classes="wrong", markup=False)
        with Horizontal(classes="buttons"):
            yield Button("Review", id="save", variant="primary")

    def on_mount(self) -> None:
        """Only what is wrong takes room."""
        for label in self.query(".wrong"):
            label.display = False

    def _widget(self, field: Field) -> ComposeResult:
        text = field.text(self._document)
        if field.options:
            options = [(choice, choice) for choice in field.options]
            yield Select(options, value=text, allow_blank=False, id=f"field-{field.name}", compact=True)
        else:
            fixed = self._fixed and field.name == "name"
            yield Input(text, placeholder=field.hint, disabled=fixed, id=f"field-{field.name}", compact=True)

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        """Say what is wrong with this line as soon as it is; what was said of the whole is no longer true."""
        self._say("wrong", "")
        field = next(each for each in FIELDS[self._kind] if f"field-{each.name}" == event.input.id)
        wrong = complaint(self._kind, field, event.value)
        event.input.set_class(bool(wrong), "-wrong")
        self._say(f"wrong-{field.name}", f"expected {wrong.removeprefix('expected ')}" if wrong else "")

    @on(Button.Pressed, "#save")
    @on(Input.Submitted)
    def action_save(self) -> None:
        """Close with what it says, or say what is wrong with it."""
        try:
            entity = read_form(self._kind, self._document, dict(self._texts()))
        except InvalidValue as error:
            self._say("wrong", f"✗ {printable(error.message)}: {printable(error.hint)}")
            # A form is longer than most terminals.
            self.call_after_refresh(self.query_one("#wrong").scroll_visible, animate=False)
            return
        self.dismiss(entity)

    def _texts(self) -> Iterator[tuple[str, str]]:
        for field in FIELDS[self._kind]:
            widget = self.query_one(f"#field-{field.name}")
            if isinstance(widget, Input | Select):
                yield field.name, str(widget.value)

    def _say(self, id: str, text: str) -> None:
        label = self.query_one(f"#{id}", Label)
        label.update(text)
        label.display = bool(text)
