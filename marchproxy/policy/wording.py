"""Lists in sentences: some spelled out, the rest counted."""

from collections.abc import Iterable

SHOWN = 8
"""Members of a list that a sentence spells out before it only counts the rest."""


def listed(items: Iterable[str]) -> str:
    """All of up to `SHOWN`, else the first and how many more there are. There is one at least."""
    names = list(items)
    if len(names) > SHOWN:
        names = [*names[:SHOWN], f"{len(names) - SHOWN} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
