"""Which rule of a listener a request takes, by host, path, and what else mappings want of it.

The most specific route wins of those that the request meets in everything: an exact host before the longest
wildcard before none, then the longest path, an exact one before a prefix, then the most conditions; of equals
the first by precedence. A mapping that denies, and has a lower priority number than the winner, wins over it
whatever its route says: so a ban that was meant to come first is not undone by somebody's exact path.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from marchproxy.model.entities import Action
from marchproxy.model.httpfields import plain_name
from marchproxy.policy.conditions import Asked, Plain
from marchproxy.policy.paths import decoded
from marchproxy.policy.plan import ANY_ROUTE, Route, Rule, precedence

_PLAIN = Plain()


@dataclass(frozen=True, slots=True)
class Routes:
    """Rules that match one source, indexed for requests."""

    exact: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    """By host; each tuple in the order in which its rules are tried. Empty: whatever the host."""
    below: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    """The same of wildcards, by what comes behind `*.`."""
    bans: tuple[Rule, ...] = ()
    """Those that deny, in first-match order."""
    conditional: tuple[Rule, ...] = ()
    """Those that look at more than host and path."""
    headers: frozenset[str] = frozenset()
    """What mappings look at, or change: names as of `plain_name`. Behind a body nobody would have looked."""
    certificates: tuple[str, ...] = ()
    """Qualified names of those with which TLS is spoken, each once."""
    asks: bool = False
    """Whether any wants a certificate of the client."""

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
        at = {host: _ordered(found) for host, found in exact.items()}
        under = {host: _ordered(found) for host, found in below.items()}
        ordered = [rule for found in (*at.values(), *under.values()) for rule in found]
        return cls(
            at,
            under,
            tuple([rule for rule in every if rule.action is Action.DENY]),
            tuple([rule for rule in every if rule.route is not None and rule.route.conditions]),
            frozenset([name for rule in every for name in _heeded(rule)]),
            tuple(dict.fromkeys([rule.tls for rule in ordered if rule.tls and rule.leads])),
            any(rule.handling.client for rule in ordered if rule.pool),
        )

    def find(self, host: str, path: str, asked: Asked = _PLAIN) -> Rule | None:
        """The rule for a request: `host` in lower case without a port, `path` as of `canonical_path`.

        A path with escapes that would take another rule without them takes none: its server may decode it.
        """
        found = self._find(host, path, asked)
        if "%" in path and found is not self._find(host, decoded(path), asked):
            return None
        return found

    def depends(self, host: str, path: str) -> bool:
        """Whether not all requests for this host and path take the same rule."""
        if not self.conditional:
            return False
        paths = (path, decoded(path)) if "%" in path else (path,)
        return any(matches(rule, host, each) for rule in self.conditional for each in paths)

    def methods(self, host: str, path: str, asked: Asked) -> tuple[str, ...]:
        """By which methods a request would be allowed that takes no rule; sorted."""
        found: set[str] = set()
        for rule in self.conditional if "%" not in path else ():
            conditions = rule.route.conditions if rule.route else None
            allowed = conditions and rule.action is not Action.DENY and matches(rule, host, path)
            if conditions and allowed and conditions.unmet(asked, denies=False) == ("method",):
                found |= conditions.methods
        return tuple(sorted(found))

    def _find(self, host: str, path: str, asked: Asked) -> Rule | None:
        found = self._most_specific(host, path, asked)
        if found is None or not self.bans:
            return found
        for ban in self.bans:
            if ban.priority >= found.priority:
                break
            if matches(ban, host, path) and _meets(ban, asked):
                return ban
        return found

    def _most_specific(self, host: str, path: str, asked: Asked) -> Rule | None:
        found = _first(self.exact.get(host, ()), path, asked) if host else None
        if found is None and self.below:
            _, _, parent = host.partition(".")
            while parent and found is None:
                found = _first(self.below.get(parent, ()), path, asked)
                _, _, parent = parent.partition(".")
        return found or _first(self.exact.get("", ()), path, asked)


def matches(rule: Rule, host: str, path: str) -> bool:
    """Whether a request has the host and path that a rule wants."""
    wanted = rule.route or ANY_ROUTE
    if wanted.host.startswith("*."):
        if not host.endswith(wanted.host[1:]):
            return False
    elif wanted.host and wanted.host != host:
        return False
    return _leads(rule, wanted, path)


def unmet(rule: Rule, asked: Asked) -> tuple[str, ...]:
    """What else it wants that a request does not meet."""
    conditions = rule.route.conditions if rule.route else None
    return conditions.unmet(asked, denies=rule.action is Action.DENY) if conditions else ()


def _heeded(rule: Rule) -> Iterator[str]:
    if rule.route is not None and rule.route.conditions is not None:
        yield from rule.route.conditions.heeded
    if rule.actions is not None:
        yield from (plain_name(action.name) for action in rule.actions.request)


def _meets(rule: Rule, asked: Asked) -> bool:
    return rule.route is None or rule.route.conditions is None or not unmet(rule, asked)


def _ordered(rules: list[Rule]) -> tuple[Rule, ...]:
    """The most specific first; sorting is stable, but joined rules come from several lists."""
    return tuple(sorted(rules, key=_specificity))


def _specificity(rule: Rule) -> tuple[object, ...]:
    route = rule.route or ANY_ROUTE
    count = route.conditions.count if route.conditions else 0
    return -len(route.path), not route.exact, -count, precedence(rule)


def _first(rules: Iterable[Rule], path: str, asked: Asked) -> Rule | None:
    for rule in rules:
        route = rule.route
        if route is None or (_leads(rule, route, path) and (not route.conditions or not unmet(rule, asked))):
            return rule
    return None


def _leads(rule: Rule, route: Route, path: str) -> bool:
    """Whether a path is the one, or below the one, that a rule is for.

    Many servers take no notice of a slash at the end, so a ban does not either.
    """
    wanted = route.path
    if route.exact:
        if rule.action is Action.DENY:
            return path.rstrip("/") == wanted.rstrip("/")
        return path == wanted
    return path.startswith(wanted) and (len(path) == len(wanted) or not wanted or path[len(wanted)] == "/")
