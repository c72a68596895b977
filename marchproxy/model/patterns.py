"""Host names and wildcards, found by name."""

from collections.abc import Iterable

WILDCARD = "*."


class Patterns:
    """A set of host names; `*.example.com` is every name below example.com at any depth, and not itself.

    A look-up costs one step for each label of the name, however many names there are.
    """

    __slots__ = ("_names", "_suffixes")

    def __init__(self, names: Iterable[str]) -> None:
        every = frozenset(names)
        self._suffixes = frozenset(name.removeprefix(WILDCARD) for name in every if name.startswith(WILDCARD))
        self._names = frozenset(name for name in every if not name.startswith(WILDCARD))

    def meets(self, name: str) -> bool:
        """Whether `name`, which may be a wildcard itself, and some member have a host name in common."""
        if not name.startswith(WILDCARD):
            return bool(self.matching(name))
        parent = name.removeprefix(WILDCARD)
        below = f".{parent}"
        inside = any(each == parent or each.endswith(below) for each in self._suffixes)
        return inside or any(each.endswith(below) for each in self._names) or bool(self.matching(f"x{below}"))

    def matching(self, name: str) -> list[str]:
        """The members that `name` (lower case, no trailing dot) falls under: itself first, then wildcards."""
        found = [name] if name in self._names else []
        if self._suffixes:
            _, dot, parent = name.partition(".")
            while dot:
                if parent in self._suffixes:
                    found.append(WILDCARD + parent)
                _, dot, parent = parent.partition(".")
        return found
