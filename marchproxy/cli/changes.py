"""Changes between two snapshots, as rows and as lines that a person reads before saying yes."""

from collections.abc import Iterator, Sequence

from marchproxy.cli.context import Environment
from marchproxy.cli.output import Output, serialise, show_lines
from marchproxy.client.changes import action, headline, row, steps
from marchproxy.model.change import Change

_SIGNS = {"add": ("+", "green"), "change": ("~", "yellow"), "remove": ("-", "red")}


def show_changes(environment: Environment, output: Output, changes: Sequence[Change]) -> None:
    """Print changes: an array, or a line for each thing with its fields below it."""
    if output is not Output.TABLE:
        environment.stdout.write(serialise([row(change) for change in changes], output))
        return
    if not changes:
        environment.note("no difference")
    show_lines(environment, (line for change in changes for line in _lines(environment, change)))


def _lines(environment: Environment, change: Change) -> Iterator[str]:
    sign, colour = _SIGNS[action(change)]
    yield environment.colour(f"{sign} {headline(change)}", colour)
    yield from (f"    {step}" for step in steps(change))
