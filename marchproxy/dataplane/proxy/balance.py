"""Which backend a new flow goes to."""

import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from math import log

from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Backend, Pool

_MASK = 0xFFFFFFFF
_MAPPED = b"\0" * 10 + b"\xff\xff"


def candidates(pool: Pool, hashed: int) -> Iterator[Backend]:
    """Every backend of the pool once, in the order in which this flow should try them.

    The first is the Maglev table's choice. The others follow by weighted rendezvous hashing: the flows of a
    dead backend spread over all that live. The table's next slots would not do: which backends are neighbours
    there is fixed, and some would take eight times as much as others.
    """
    first = pool.table[hashed % len(pool.table)]
    yield pool.backends[first]
    rest = (index for index in range(len(pool.backends)) if index != first)
    for index in sorted(rest, key=lambda index: _rank(pool.backends[index], hashed, index)):
        yield pool.backends[index]


def _rank(backend: Backend, hashed: int, index: int) -> float:
    """Exponentially distributed with the weight as its rate: the smallest of several is a draw by weight."""
    return -log((_mix(hashed, index + 1) + 1) / 2**32) / backend.weight


def flow_hash(
    source: IPAddress, source_port: int, destination: IPAddress, destination_port: int, protocol: int
) -> int:
    """32 bits of a flow's tuple, as `hash_flow` in bpf/hash.h: both tiers choose the same backend."""
    words = _words(source)
    value = 0x9E3779B9
    for word in words:
        value = _mix(value, word)
    value = _mix(value, _wire(source_port) << 16 | _wire(destination_port))
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
