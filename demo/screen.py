"""The terminal: headings, a session as an operator would type it, and what was seen to be true."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import wrap

from rich.console import Console, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

WIDTH = 80
PROMPT = "appliance# "
FOLD = " \\"
"""How a shell is told that a command goes on in the next line."""


class Screen:
    """Colours and a moving table on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        """Write to stdout."""
        self.console = Console(highlight=False)
        # Wider lines are harder to read, and a narrower terminal folds them anyway.
        self.console.width = min(WIDTH, self.console.width)

    def show(self, what: RenderableType) -> None:
        """Anything."""
        self.console.print(what)

    def heading(self, text: str) -> None:
        """A new scene."""
        self.console.print()
        self.console.print(Rule(Text(text, style="bold cyan"), align="left", style="cyan"))

    def say(self, text: str) -> None:
        """What is going on."""
        self.console.print(Text(text, style="italic"))

    def command(self, *words: str) -> None:
        """A command as typed."""
        width = self.console.width - len(PROMPT) - len(FOLD)
        lines = wrap(shlex.join(words), width, subsequent_indent="    ", break_on_hyphens=False)
        line = Text(PROMPT, style="green")
        self.console.print(line.append(f"{FOLD}\n".join(lines), style="bold"))

    def output(self, text: str) -> None:
        """What a command printed."""
        if text.strip():
            self.console.print(Text(text.rstrip("\n"), style="dim"))

    @contextmanager
    def live(self, what: RenderableType) -> Iterator[Callable[[], None]]:
        """Show something that changes: yields what to call after a change. Plain output has only its end."""
        if self.console.is_terminal:
            with Live(what, console=self.console, auto_refresh=False) as live:
                yield live.refresh
        else:
            yield lambda: None
            self.console.print(what)

    def right(self, text: str) -> None:
        """Something that was checked and is true."""
        self.console.print(Text("  ok  ", style="bold green").append(text, style="default"))

    def wrong(self, text: str, hint: str = "") -> None:
        """The plain reason why the demo ends here."""
        self.console.print(Text("  failed  ", style="bold red").append(text, style="default"))
        if hint:
            self.console.print(Text(hint, style="dim"))
