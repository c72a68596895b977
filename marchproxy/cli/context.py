"""What a command stands in: streams, environment variables, verbosity."""

import io
import os
import sys
from dataclasses import dataclass, field
from typing import TextIO

from marchproxy.client.appliance import Appliance
from marchproxy.client.words import printable

_COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33", "dim": "2"}


@dataclass(slots=True)
class Environment(Appliance):
    """Everything a command takes from outside, in one object, so that tests hand in another."""

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    verbosity: int = 0
    """How often `-v` was given: 1 says what is done, 2 adds tracebacks, 3 each step."""
    trial: int | None = None
    """`--confirm`: seconds until a change goes back unless it is confirmed; None: it stays."""
    on_trial: int | None = None
    """The revision that this command made with `--confirm`."""
    waits: bool = True
    """Whether a command with `--confirm` stays until then."""

    @property
    def interactive(self) -> bool:
        """Whether somebody is there to answer a question: it is asked on stderr and read from stdin."""
        return self.stdin.isatty() and self.stderr.isatty()

    @property
    def width(self) -> int | None:
        """Columns of the terminal that stdout is; None where it is not one and nothing needs to be cut."""
        if not self.stdout.isatty():
            return None
        columns = self.variables.get("COLUMNS", "")
        if columns.isdigit() and int(columns) > 0:
            return int(columns)
        try:
            return os.get_terminal_size(self.stdout.fileno()).columns or None
        except OSError:
            return None

    def colour(self, text: str, name: str, *, stream: TextIO | None = None) -> str:
        """`text` in a colour where `stream` (default: stdout) is a terminal that wants it (https://no-color.org)."""
        wanted = not self.variables.get("NO_COLOR") and self.variables.get("TERM") != "dumb"
        if wanted and (stream or self.stdout).isatty():
            return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"
        return text

    def note(self, text: str) -> None:
        """Say something beside the data: one line on stderr."""
        self.stderr.write(printable(text) + "\n")

    def detail(self, text: str) -> None:
        """Say it only with `-v`."""
        if self.verbosity:
            self.note(text)

    def debug(self, text: str) -> None:
        """Say it only with `-vvv`."""
        if self.verbosity >= 3:
            self.note(text)


def of_process() -> Environment:
    """The process's own streams. JSON is UTF-8 whatever the locale says (RFC 8259 section 8.1)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    return Environment()
