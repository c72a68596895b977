"""The addresses of all names that the plan asks for, in numbered versions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from marchproxy.dataplane.names.held import HeldAddresses, in_order
from marchproxy.model.address import IPAddress
from marchproxy.model.patterns import WILDCARD, Patterns

MOST_TOGETHER = 65_536
"""Addresses of all names. A plan has to fit into the kernel's tables, whatever DNS servers say."""

type Addresses = Mapping[str, tuple[IPAddress, ...]]


@dataclass(frozen=True, slots=True)
class NamesView:
    """The table at one version, as the compiler takes it."""

    version: int = 0
    current: Addresses = field(default_factory=lambda: MappingProxyType({}))
    lingering: Addresses = field(default_factory=lambda: MappingProxyType({}))


class NameTable:
    """Host names and wildcards to what they stand for. Each change of that is a new version."""

    def __init__(self) -> None:
        self._names: dict[str, HeldAddresses] = {}
        self._patterns = Patterns(())
        self._current: dict[str, tuple[IPAddress, ...]] = {}
        self._lingering: dict[str, tuple[IPAddress, ...]] = {}
        self._version = 0
        self._size = 0
        self._view = NamesView()

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> HeldAddresses:
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    @property
    def view(self) -> NamesView:
        """What it holds: the same object for as long as that does not change."""
        if self._view.version != self._version:
            self._view = NamesView(self._version, dict(self._current), dict(self._lingering))
        return self._view

    def keep(self, names: frozenset[str]) -> frozenset[str]:
        """Hold exactly these names; which of them are new."""
        new = names - self._names.keys()
        for name in self._names.keys() - names:
            held = self._names.pop(name)
            self._size -= len(held)
            self._version += bool(len(held))
            self._current.pop(name, None)
            self._lingering.pop(name, None)
        for name in new:
            self._names[name] = HeldAddresses()
        self._patterns = Patterns(self._names)
        return new

    def restore(self, name: str, addresses: Iterable[tuple[IPAddress, float, float]], now: float) -> None:
        """Take over addresses, each with when it stops to be current and to linger."""

        def take(held: HeldAddresses) -> bool:
            for address, fresh_until, gone_at in addresses:
                held.restore(address, fresh_until, gone_at, self._version + 1)
            return held.settle(now)

        self._change(name, take)

    def answer(self, name: str, addresses: Iterable[IPAddress], unknown: frozenset[int], now: float) -> bool:
        """A name has resolved; whether that changed anything."""
        return self._change(name, lambda held: held.answer(addresses, unknown, now, self._version + 1))

    def learn(self, name: str, addresses: Iterable[IPAddress], ttl: float, now: float) -> int:
        """A client was told addresses of `name`. The version that has them; 0 where nothing depends on it."""
        told, since = tuple(addresses), 0
        for key in self._patterns.matching(name):
            # Beyond all bounds only what is known already is held for longer.
            full = self._size + len(told) > MOST_TOGETHER
            fitting = [each for each in told if self._names[key].since((each,))] if full else told
            self._learn(key, fitting, ttl, now)
            self._names[key].unlearned += len(told) - len(fitting)
            since = max(since, self._names[key].since(told))
        return since

    def due(self, now: float) -> list[str]:
        """Names some of whose addresses stop to be current, or to linger."""
        return [name for name, held in self._names.items() if held.next_at <= now]

    def forget(self, name: str, addresses: Iterable[IPAddress], now: float) -> bool:
        """Let go of some of a name's addresses at once; whether that changed anything."""
        return self._change(name, lambda held: held.forget(addresses, now))

    def drop(self, name: str, now: float) -> bool:
        """Let go of a name's addresses whose time is over; whether that changed anything."""
        return self._change(name, lambda held: held.drop(now))

    def _learn(self, name: str, addresses: Iterable[IPAddress], ttl: float, now: float) -> None:
        self._change(name, lambda held: held.learn(addresses, ttl, now, self._version + 1))

    def _change(self, name: str, change: Callable[[HeldAddresses], bool]) -> bool:
        held = self._names[name]
        before = len(held)
        changed = change(held)
        self._size += len(held) - before
        if not changed:
            return False
        current, lingering = held.current, held.lingering
        if name.startswith(WILDCARD):
            # Nobody has said of these that they are no longer addresses of such names: they stay backends.
            current, lingering = in_order((*current, *lingering)), ()
        if (self._current.get(name, ()), self._lingering.get(name, ())) == (current, lingering):
            return False
        self._version += 1
        _put(self._current, name, current)
        _put(self._lingering, name, lingering)
        return True


def _put(table: dict[str, tuple[IPAddress, ...]], name: str, addresses: tuple[IPAddress, ...]) -> None:
    if addresses:
        table[name] = addresses
    else:
        table.pop(name, None)
