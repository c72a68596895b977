"""What `bpf/policy.h` and `pipeline_listener` do with the policy maps, once more in Python.

So the way from a plan to bytes in maps can be compared with the reference evaluator, without a packet and
without privileges. (`tests/bpf` compares the programs themselves.)
"""

from collections.abc import Mapping
from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.banks import _ADDRESS_KEY_SIZE
from marchproxy.dataplane.kernel.classes import WORD
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.model.address import IPAddress
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Evaluator, Query


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a new flow: the reason, who decided, and the share of each backend."""

    reason: Reason
    mapping: str = ""
    backends: tuple[tuple[IPAddress, int, int], ...] = ()
    """Address, port, slots."""


def reference(evaluator: Evaluator, query: Query) -> Outcome:
    """The evaluator's answer."""
    answer: Answer = evaluator.evaluate(query)
    slots = [answer.pool.backends[index] for index in answer.pool.table] if answer.pool else []
    return Outcome(
        answer.reason, answer.mapping, _shares([(backend.address, backend.port) for backend in slots])
    )


def interpret(maps: Mapping[str, Map], names: Mapping[str, int], query: Query) -> Outcome:
    """The maps' answer, in the bank that the settings name. `names`: mappings to their numbers."""
    bank = Settings(maps["settings"]).bank
    listener = _listener(maps["listeners"], query.destination, query, bank)
    if listener is None and query.is_local():
        wildcard = layouts.ANY_V4 if query.destination.version == 4 else layouts.ANY_V6
        listener = _listener(maps["listeners"], layouts.read_address(wildcard), query, bank)
    if listener is None:
        return Outcome(Reason.PASSED_TO_HOST if query.is_local() else Reason.NO_MAPPING)
    first, count = layouts.LISTENER.struct.unpack(listener)
    source_class = _class(maps["address_classes"], query.source, bank)
    for number in range(first, first + count):
        if any(
            _bit(maps["source_bits"], each, number, bank) for each in (source_class, layouts.CLASS_ANYONE)
        ):
            return _rule(maps, names, number, bank)
    return Outcome(Reason.NO_MAPPING)


def _listener(listeners: Map, address: IPAddress, query: Query, bank: int) -> bytes | None:
    key = layouts.LISTENER_KEY.struct.pack(
        layouts.pack_address(address), layouts.pack_port(query.port), query.number, bank
    )
    return listeners.get(key)


def _class(sources: Map, address: IPAddress, bank: int) -> int:
    key = layouts.ADDRESS_KEY.struct.pack(8 + 128, bank, layouts.pack_address(address))
    found = sources.get(key[:_ADDRESS_KEY_SIZE])
    return int(layouts.U32.unpack(found)[0]) if found else layouts.CLASS_STRANGER


def _bit(bits: Map, source_class: int, number: int, bank: int) -> bool:
    tagged = source_class | bank << layouts.CLASS_BANK_SHIFT
    word = bits.get(layouts.BITS_KEY.struct.pack(tagged, number // WORD))
    return bool(word and layouts.U64.unpack(word)[0] >> number % WORD & 1)


def _rule(maps: Mapping[str, Map], names: Mapping[str, int], number: int, bank: int) -> Outcome:
    raw = maps["rules"].get(layouts.U32.pack(bank * layouts.RULES + number))
    assert raw is not None
    mapping, first, size, reason, _, _ = layouts.RULE.struct.unpack(raw)
    (name,) = (name for name, held in names.items() if held == mapping)
    slots = [_backend(maps, slot, bank) for slot in range(first, first + size)]
    return Outcome(Reason(reason), name, _shares(slots))


def _backend(maps: Mapping[str, Map], slot: int, bank: int) -> tuple[IPAddress, int]:
    chosen = maps["pools"].get(layouts.U32.pack(bank * layouts.POOL_SLOTS + slot))
    assert chosen is not None
    number = layouts.U32.unpack(chosen)[0]
    raw = maps["backends"].get(layouts.U32.pack(bank * layouts.BACKENDS + number))
    assert raw is not None
    address, _, port, _ = layouts.BACKEND.struct.unpack(raw)
    return layouts.read_address(address), layouts.read_port(port)


def _shares(slots: list[tuple[IPAddress, int]]) -> tuple[tuple[IPAddress, int, int], ...]:
    found = {(address, port, slots.count((address, port))) for address, port in set(slots)}
    return tuple(sorted(found, key=lambda share: (int(share[0]), share[1])))
