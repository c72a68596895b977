"""Whether a request meets what a mapping wants of its method, headers and query.

Servers read one request in several ways, and a client may know which. So a mapping that allows wants to be
sure, and one that denies takes what is possible: a header or parameter that is repeated, has `_` for `-`,
another case or escapes, a method that another header overrides. In doubt, therefore, more is denied and less
allowed. What is in a body is not looked at.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import unquote_plus

from marchproxy.model.conditions import Condition, header_condition, query_condition
from marchproxy.model.httpfields import plain_name

_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
"""Headers in whose place some frameworks take the method."""
_OVERRIDING_PARAMETERS = frozenset({"_method", "x-http-method-override"})
_SEPARATORS = re.compile("[&;]")
_WRITTEN = frozenset("%+;[")
"""What a query without which has one reading, but for case."""
_DEPTH = 4
"""Times that a query may be decoded, as of `paths`."""


class Asked(Protocol):
    """A request, as far as conditions look at it."""

    @property
    def method(self) -> str:
        """As the client wrote it."""

    @property
    def target(self) -> str:
        """Path and query."""

    @property
    def fields(self) -> Sequence[tuple[str, str]]:
        """Those that go on, their names in lower case."""


class Plain(NamedTuple):
    """A request of which nothing else is known."""

    method: str = "GET"
    target: str = ""
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of them have to be met."""

    methods: frozenset[str] = frozenset()
    """Any of these; empty: any at all. GET stands for HEAD, too."""
    headers: tuple[Condition, ...] = ()
    query: tuple[Condition, ...] = ()

    @classmethod
    def of(cls, methods: Iterable[str], headers: Iterable[str], query: Iterable[str]) -> "Conditions | None":
        """Conditions from their canonical texts; None: there are none."""
        wanted = frozenset(methods)
        made = cls(
            wanted | {"HEAD"} if "GET" in wanted else wanted,
            tuple([header_condition(text) for text in headers]),
            tuple([query_condition(text) for text in query]),
        )
        return made if made.count else None

    @property
    def count(self) -> int:
        """How many there are; the methods count as one."""
        return bool(self.methods) + len(self.headers) + len(self.query)

    @property
    def heeded(self) -> frozenset[str]:
        """Headers that are looked at, as of `plain_name`."""
        names = frozenset([plain_name(each.name) for each in self.headers])
        return names | _OVERRIDES if self.methods else names

    def words(self) -> list[str]:
        """What is wanted, for people."""
        found = [f"method {' or '.join(sorted(self.methods))}"] if self.methods else []
        found += [_words("header", ": ", each) for each in self.headers]
        return found + [_words("query", "=", each) for each in self.query]

    def unmet(self, asked: Asked, *, denies: bool) -> tuple[str, ...]:
        """Those that a request does not meet: `method`, `header NAME`, `query NAME`."""
        failed = [] if self.meets_method(asked, denies=denies) else ["method"]
        failed += [
            f"header {each.name}" for each in self.headers if not _header(each, asked.fields, denies=denies)
        ]
        if self.query:
            query = _Query(asked.target)
            failed += [f"query {each.name}" for each in self.query if not query.meets(each, denies=denies)]
        return tuple(failed)

    def meets_method(self, asked: Asked, *, denies: bool) -> bool:
        """Whether the method is one of those wanted."""
        if not self.methods:
            return True
        possible = _methods(asked)
        return not possible.isdisjoint(self.methods) if denies else possible <= self.methods


def _words(kind: str, between: str, wanted: Condition) -> str:
    if wanted.absent:
        return f"no {kind} {wanted.name}"
    return f"{kind} {wanted.name}" + ("" if wanted.value is None else f"{between}{wanted.value}")


def _methods(asked: Asked) -> set[str]:
    """What a server may take for the method."""
    found = {asked.method, asked.method.upper()}
    overriding = [value for name, value in asked.fields if plain_name(name) in _OVERRIDES]
    if "?" in asked.target and _may_override(asked.target):
        overriding += [
            value for name, value in _Query(asked.target).possible if name in _OVERRIDING_PARAMETERS
        ]
    found.update(word.strip().upper() for value in overriding for word in value.split(","))
    return found


def _may_override(target: str) -> bool:
    """Whether a query may name a method: a look that costs little."""
    return "%" in target or "method" in target.lower()


def _header(wanted: Condition, fields: Sequence[tuple[str, str]], *, denies: bool) -> bool:
    exact = [value for name, value in fields if name == wanted.name]
    plain = plain_name(wanted.name)
    alike = [value for name, value in fields if plain_name(name) == plain]
    if wanted.absent:
        return not (exact if denies else alike)
    if wanted.value is None:
        return bool(alike if denies else exact)
    if not denies:
        return exact == [wanted.value] == alike
    value = wanted.value.casefold()
    return any(
        value in (each.casefold().strip(), *[part.strip() for part in each.casefold().split(",")])
        for each in alike
    )


class _Query:
    """The parameters of a target."""

    def __init__(self, target: str) -> None:
        _, _, self._text = target.partition("?")
        self.possible = _possible(self._text) if self._text else frozenset()

    def meets(self, wanted: Condition, *, denies: bool) -> bool:
        """Whether it has what is wanted."""
        name = wanted.name.casefold()
        possible = {value for each, value in self.possible if each == name}
        exact = [value for each, value in self._pairs() if each == wanted.name]
        if wanted.absent:
            return not (exact if denies else possible)
        if wanted.value is None:
            return bool(possible if denies else exact)
        value = wanted.value.casefold()
        if denies:
            return value in possible
        return exact == [wanted.value] and possible <= set(_decodings(value)) and "#" not in self._text

    def _pairs(self) -> list[tuple[str, str]]:
        parts = [part.partition("=") for part in self._text.split("&")] if self._text else []
        return [(unquote_plus(name), unquote_plus(value)) for name, _, value in parts]


def _possible(query: str) -> frozenset[tuple[str, str]]:
    """Whatever a server may make of it: `;` for `&`, decoded more than once, a NUL or bracket as an end."""
    found = set()
    if query.isascii() and not set(query) & _WRITTEN:
        pairs = [part.partition("=") for part in query.lower().split("&")]
        return frozenset([(name, value) for name, _, value in pairs if name or value])
    for text in _decodings(query):
        for part in _SEPARATORS.split(text):
            name, _, value = part.partition("=")
            plain, whole = unquote_plus(name).casefold().strip(), unquote_plus(value).casefold()
            found.add((plain, whole))
            found.add((plain.partition("\0")[0].partition("[")[0], whole.partition("\0")[0]))
    return frozenset(found - {("", "")})


def _decodings(text: str) -> list[str]:
    """A text, and what it is decoded once, twice and so on."""
    found = [text]
    while len(found) <= _DEPTH and (decoded := unquote_plus(found[-1])) != found[-1]:
        found.append(decoded)
    return found
