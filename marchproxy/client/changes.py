"""Changes between two snapshots in words and as rows."""

from collections.abc import Iterable, Iterator
from typing import Any

from marchproxy.client.words import cell
from marchproxy.model.change import Change, Kind
from marchproxy.model.documents import Document
from marchproxy.model.names import DEFAULT_CLUSTER

_NOTHING: Document = {}


def action(change: Change) -> str:
    """`add`, `change` or `remove`."""
    if change.before is None:
        return "add"
    return "remove" if change.after is None else "change"


def row(change: Change) -> Document:
    """One change as JSON values; `before` and `after` are as in files, null where there is none."""
    return {
        "action": action(change),
        "kind": str(change.kind),
        "cluster": change.cluster,
        "name": change.name,
        "before": change.before,
        "after": change.after,
    }


def summary(changes: Iterable[Change]) -> str:
    """`2 added, 1 changed`: how many of each."""
    actions = [action(change) for change in changes]
    words = {"add": "added", "change": "changed", "remove": "removed"}
    return ", ".join(f"{actions.count(key)} {word}" for key, word in words.items() if key in actions)


def headline(change: Change) -> str:
    """What it is about: `mapping web`, `service lab/web`."""
    owner = "" if change.cluster in ("", DEFAULT_CLUSTER) else f"{change.cluster}/"
    named = "" if change.kind is Kind.SETTINGS else f" {owner}{change.name}"
    return f"{change.kind.label}{named}"


def steps(change: Change) -> Iterator[str]:
    """A line for each field that changes: `ports: 80 -> 443`."""
    before, after = change.before or _NOTHING, change.after or _NOTHING
    for field in sorted(before.keys() | after.keys() - {"name"}):
        if field != "name" and before.get(field) != after.get(field):
            yield f"{field}: {_step(change, before.get(field), after.get(field))}"


def _step(change: Change, before: Any, after: Any) -> str:
    if change.before is None:
        return _whole(after)
    return _whole(before) if change.after is None else f"{_whole(before)} -> {_whole(after)}"


def _whole(value: Any) -> str:
    return ", ".join(map(cell, value)) if isinstance(value, list) else cell(value)
