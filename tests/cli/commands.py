"""Every command there is, for rules that hold for all of them."""

from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from marchproxy.cli.main import app

WORDS = """
init
cluster add|list|show|set|remove|rotate-key
service add|list|show|set|remove
mapping add|list|show|set|remove
token issue|rotate|revoke|list
interface add|list|show|set|remove
cert add|generate|renew|source|pull|list|show|remove
listener add|list|set|remove
limit add|list|show|set|remove
block add|import|list|remove|check
appliance show|set
revision list|show|diff|rollback
apply
confirm
export
backup
restore
reset
check
diff
run
autostart
detach
connect
status
flows
events
logs
top
trace latency|retransmits|drops
capture
learn show|propose|forget
doctor
explain
tui
version
"""
"""The whole command line of this version, as DESIGN names it; commands of later versions are not there."""


def paths() -> list[tuple[str, ...]]:
    """`("service", "add")`, `("status",)`, …"""
    found: list[tuple[str, ...]] = []
    for line in WORDS.split("\n"):
        noun, _, verbs = line.partition(" ")
        if noun:
            found += [(noun, verb) for verb in verbs.split("|")] if verbs else [(noun,)]
    return found


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Each command with its words."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    for name, command in root.commands.items():
        if isinstance(command, TyperGroup):
            for verb, inner in command.commands.items():
                assert isinstance(inner, TyperCommand)
                yield f"{name} {verb}", inner
        else:
            assert isinstance(command, TyperCommand)
            yield name, command


def option(command: TyperCommand, flag: str) -> Any:
    """The option of that flag, or None."""
    return next((param for param in command.params if flag in param.opts), None)
