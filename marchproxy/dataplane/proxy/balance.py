"""Which backend a new flow goes to: what bpf/balance.h does, and which ones to try when that one fails."""

import struct
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from math import log

from marchproxy.model.address import IPAddress
from marchproxy.model.entities import Balance
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Backend, Pool, Rule

_REMEMBERED = 4096
"""Backends whose numbers are found at once."""
_MASK = 0xFFFFFFFF
_MAPPED = b"\0" * 10 + b"\xff\xff"
_SECOND_DRAW = 3
"""MP_BALANCE_LEAST_CONNECTIONS, with which the kernel mixes the hash for the second of its two draws."""


class Balancer:
    """Chooses, and keeps what strategies have to remember."""

    def __init__(self) -> None:
        self._turns: Counter[tuple[str, int]] = Counter()
        """By mapping and IP version."""
        self._active: dict[tuple[IPAddress, int], list[int]] = {}
        """Flows to each address and port, as a list that has their number."""
        self._known: dict[int, tuple[Backend, list[int]]] = {}
        """The same by the identity of backends: addresses are slow to look up."""

    def candidates(self, rule: Rule, pool: Pool, query: Query, source_port: int) -> Iterator[Backend]:
        """Every backend that takes new flows once, in the order in which this flow should try them.

        The first is the strategy's choice. The others follow by weighted rendezvous hashing: the flows of a
        dead backend spread over all that live. The table's next slots would not do: which backends are
        neighbours there is fixed, and some would take eight times as much as others.
        """
        if not pool.table:
            return
        if len(pool.backends) == 1:
            yield pool.backends[0]
            return
        hashed = flow_hash(query.source, source_port, query.destination, query.port, query.number)
        if rule.balance is Balance.SOURCE:
            hashed = source_hash(query.source)
        first = self._first(rule, pool, hashed, query.destination.version)
        yield pool.backends[first]
        rest = (index for index in set(pool.table) if index != first)
        for index in sorted(rest, key=lambda index: _rank(pool.backends[index], hashed, index)):
            yield pool.backends[index]

    def count(self, backend: Backend, change: int) -> None:
        """A flow to `backend` was established (1) or has ended (-1)."""
        known = self._known.get(id(backend))
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
                self._active = {place: number for place, number in self._active.items() if number[0]}
            number = self._active.setdefault((backend.address, backend.port), [0])
            known = self._known[id(backend)] = backend, number
        known[1][0] += change

    def established(self, backend: Backend) -> int:
        """Flows that there are to it."""
        number = self._active.get((backend.address, backend.port))
        return number[0] if number is not None else 0

    def _first(self, rule: Rule, pool: Pool, hashed: int, version: int) -> int:
        if rule.balance is Balance.ROUND_ROBIN:
            turn = self._turns[rule.mapping, version]
            self._turns[rule.mapping, version] = turn + 1
            return pool.table[turn % len(pool.table)]
        one = pool.table[hashed % len(pool.table)]
        if rule.balance is not Balance.LEAST_CONNECTIONS:
            return one
        two = pool.table[_mix(hashed, _SECOND_DRAW) % len(pool.table)]
        return min(one, two, key=lambda index: self._load(pool.backends[index]))

    def _load(self, backend: Backend) -> float:
        """What it would carry for its weight with one flow more; the first of equals is taken."""
        return (self.established(backend) + 1) / backend.weight


def _rank(backend: Backend, hashed: int, index: int) -> float:
    """Exponentially distributed with the weight as its rate: the smallest of several is a draw by weight."""
    return -log((_mix(hashed, index + 1) + 1) / 2**32) / backend.weight


def source_hash(source: IPAddress) -> int:
    """32 bits of a client's address, as `hash_source` in bpf/hash.h."""
    value = 0x9E3779B9
    for word in _words(source):
        value = _mix(value, word)
    return value


def flow_hash(
    source: IPAddress, source_port: int, destination: IPAddress, destination_port: int, protocol: int
) -> int:
    """32 bits of a flow's tuple, as `hash_flow` in bpf/hash.h: both tiers choose the same backend."""
    value = _mix(source_hash(source), _wire(source_port) << 16 | _wire(destination_port))
    return _mix(value, _words(destination)[3] ^ protocol)


def _mix(value: int, word: int) -> int:
    value = (value ^ word) * 0x85EBCA6B & _MASK
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK
    return value ^ value >> 16


def _words(address: IPAddress) -> tuple[int, ...]:
    """Four words as the kernel loads them: network order in memory, the machine's order in a register."""
    packed = _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed
    return struct.unpack("=4I", packed)


def _wire(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), sys.byteorder)
