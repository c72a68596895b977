"""Which rule of a listener a request takes, by host and path.

The most specific route wins: an exact host before the longest wildcard before none, then the longest path; of
equals the first by precedence. A mapping that denies, and has a lower priority number than the winner, wins
over it whatever its route says: so a ban that was meant to come first is not undone by somebody's exact path.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from marchproxy.model.entities import Action
from marchproxy.policy.paths import decoded
from marchproxy.policy.plan import ANY_ROUTE, Rule, precedence


@dataclass(frozen=True, slots=True)
class Routes:
    """Rules that match one source, indexed for requests."""

    exact: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    """By host; each tuple in the order in which its rules are tried. Empty: whatever the host."""
    below: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    """The same of wildcards, by what comes behind `*.`."""
    bans: tuple[Rule, ...] = ()
    """Those that deny, in first-match order."""

    @classmethod
    def of(cls, rules: Iterable[Rule]) -> "Routes":
        """An index of rules in first-match order."""
        exact: dict[str, list[Rule]] = {}
        below: dict[str, list[Rule]] = {}
        every = list(rules)
        for rule in every:
            host = (rule.route or ANY_ROUTE).host
            wild = host.startswith("*.")
            (below if wild else exact).setdefault(host.removeprefix("*."), []).append(rule)
        return cls(
            {host: _ordered(found) for host, found in exact.items()},
            {host: _ordered(found) for host, found in below.items()},
            tuple([rule for rule in every if rule.action is Action.DENY]),
        )

    def find(self, host: str, path: str) -> Rule | None:
        """The rule for a request: `host` in lower case without a port, `path` as of `canonical_path`.

        A path with escapes that would take another rule without them takes none: its server may decode it.
        """
        found = self._find(host, path)
        if "%" in path and found is not self._find(host, decoded(path)):
            return None
        return found

    def _find(self, host: str, path: str) -> Rule | None:
        found = self._most_specific(host, path)
        if found is None or not self.bans:
            return found
        for ban in self.bans:
            if ban.priority >= found.priority:
                break
            if matches(ban, host, path):
                return ban
        return found

    def _most_specific(self, host: str, path: str) -> Rule | None:
        found = _first(self.exact.get(host, ()), path) if host else None
        if found is None and self.below:
            _, _, parent = host.partition(".")
            while parent and found is None:
                found = _first(self.below.get(parent, ()), path)
                _, _, parent = parent.partition(".")
        return found or _first(self.exact.get("", ()), path)


def matches(rule: Rule, host: str, path: str) -> bool:
    """Whether a request has the host and path that a rule wants."""
    wanted = rule.route or ANY_ROUTE
    if wanted.host.startswith("*."):
        if not host.endswith(wanted.host[1:]):
            return False
    elif wanted.host and wanted.host != host:
        return False
    return _begins(path, wanted.path)


def _ordered(rules: list[Rule]) -> tuple[Rule, ...]:
    """The longest path first; sorting is stable, but joined rules come from several lists."""
    return tuple(sorted(rules, key=lambda rule: (-len((rule.route or ANY_ROUTE).path), precedence(rule))))


def _first(rules: Iterable[Rule], path: str) -> Rule | None:
    for rule in rules:
        if rule.route is None or _begins(path, rule.route.path):
            return rule
    return None


def _begins(path: str, prefix: str) -> bool:
    """Whether the path's first segments are those of the prefix."""
    return path.startswith(prefix) and (len(path) == len(prefix) or not prefix or path[len(prefix)] == "/")
