"""What `bpf/policy.h` and `pipeline_listener` do with the policy maps, once more in Python.

So the way from a plan to bytes in maps can be compared with the reference evaluator, without a packet and
without privileges. (`tests/bpf` compares the programs themselves.)
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.addressclasses import slot_of
from marchproxy.dataplane.kernel.banks import _ADDRESS_KEY_SIZE
from marchproxy.dataplane.kernel.classes import WORD, Dimension
from marchproxy.dataplane.kernel.entries import tagged
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
        return Outcome(Reason.PASSED_TO_HOST) if query.is_local() else _transit(maps, names, query, bank)
    first, count = layouts.LISTENER.struct.unpack(listener)
    source_class = _class(maps, query.source, bank)
    for number in range(first, first + count):
        if any(
            _bit(maps["source_bits"], each, number, bank) for each in (source_class, layouts.CLASS_ANYONE)
        ):
            return _rule(maps, names, number, bank)
    return Outcome(Reason.NO_MAPPING)


def _transit(maps: Mapping[str, Map], names: Mapping[str, int], query: Query, bank: int) -> Outcome:
    """Every rule whose bit all three dimensions have; the one of lowest rank decides."""
    zero = {6: 0, 17: 65536}.get(query.number)
    index = layouts.PORT_ECHO if zero is None else zero + query.port
    stored = maps["port_classes"].get(layouts.U32.pack(bank * layouts.PORT_CLASSES + index))
    classes = {
        Dimension.SOURCE: _class(maps, query.source, bank),
        Dimension.DESTINATION: _class(maps, query.destination, bank),
        Dimension.PORT: layouts.U32.unpack(stored)[0] if stored else layouts.CLASS_STRANGER,
    }
    satisfied = set.intersection(
        *(
            _rules_of(maps, dimension, number, bank) | _rules_of(maps, dimension, layouts.CLASS_ANYONE, bank)
            for dimension, number in classes.items()
        )
    )
    found = [
        maps["transit_rules"].get(layouts.U32.pack(bank * layouts.RULES + number)) for number in satisfied
    ]
    entries = [layouts.TRANSIT_RULE.struct.unpack(raw) for raw in found if raw]
    if not entries:
        return Outcome(Reason.NO_MAPPING)
    mapping, _, reason, _ = min(entries, key=lambda entry: entry[1])
    return Outcome(Reason(reason), next((name for name, held in names.items() if held == mapping), ""))


def _rules_of(maps: Mapping[str, Map], dimension: Dimension, number: int, bank: int) -> set[int]:
    """The rules that a class satisfies, in the words that its digest says may be there."""
    index = (bank * layouts.DIMENSIONS + dimension) * layouts.CLASSES + number
    raw = maps["transit_digests"].get(layouts.U32.pack(index))
    if raw is None:
        return set()
    residues, first, at, more = layouts.TRANSIT_DIGEST.struct.unpack(raw)
    (extent,) = layouts.U32.unpack(maps["transit_extents"].get(layouts.U32.pack(bank)) or bytes(4))
    key = tagged(number, dimension) | bank << layouts.CLASS_BANK_SHIFT
    rules = set()
    for word in range(extent):
        if not residues >> word % WORD & 1:
            continue
        stored = maps["transit_bits"].get(layouts.BITS_KEY.struct.pack(key, word)) if more else None
        mask = first if word == at else layouts.U64.unpack(stored)[0] if stored else 0
        rules |= {word * WORD + bit for bit in range(WORD) if mask >> bit & 1}
    return rules


def _listener(listeners: Map, address: IPAddress, query: Query, bank: int) -> bytes | None:
    if query.transport is None:
        return None
    key = layouts.LISTENER_KEY.struct.pack(
        layouts.pack_address(address), layouts.pack_port(query.port), query.number, bank
    )
    return listeners.get(key)


def narrow_class(
    address: int, line_of: Callable[[int], bytes | None], page_of: Callable[[int], bytes | None]
) -> int:
    """What lines (by number) and pages (by the first 120 bits) say of an address."""
    page, last = address >> 8, address & 0xFF
    line = line_of(slot_of(page))
    if line is None:
        return layouts.CLASS_ELSEWHERE
    owner, classes, firsts = layouts.CLASS_LINE.struct.unpack(line)
    if not owner[-1] & layouts.LINE_TAKEN or int.from_bytes(owner) >> 8 != page:
        held = page_of(page) if owner[-1] & layouts.LINE_MORE else None
        if held is None:
            return layouts.CLASS_ELSEWHERE
        classes, firsts = layouts.PAGE.struct.unpack(held)
    return int(layouts.U32.unpack_from(classes, 4 * (bisect_right(firsts, last) - 1))[0])


def _class(maps: Mapping[str, Map], address: IPAddress, bank: int) -> int:
    packed = layouts.pack_address(address)
    number = narrow_class(
        int.from_bytes(packed),
        lambda slot: maps["class_lines"].get(layouts.U32.pack(bank * layouts.CLASS_LINES + slot)),
        lambda page: maps["class_pages"].get((page << 8 | bank).to_bytes(16)),
    )
    if number != layouts.CLASS_ELSEWHERE:
        return number
    key = layouts.ADDRESS_KEY.struct.pack(8 + 128, bank, packed)
    found = maps["address_classes"].get(key[:_ADDRESS_KEY_SIZE])
    return int(layouts.U32.unpack(found)[0]) if found else layouts.CLASS_STRANGER


def _bit(bits: Map, source_class: int, number: int, bank: int) -> bool:
    tagged = source_class | bank << layouts.CLASS_BANK_SHIFT
    word = bits.get(layouts.BITS_KEY.struct.pack(tagged, number // WORD))
    return bool(word and layouts.U64.unpack(word)[0] >> number % WORD & 1)


def _rule(maps: Mapping[str, Map], names: Mapping[str, int], number: int, bank: int) -> Outcome:
    raw = maps["rules"].get(layouts.U32.pack(bank * layouts.RULES + number))
    assert raw is not None
    mapping, first, size, reason, _, _ = layouts.RULE.struct.unpack(raw)
    name = next((name for name, held in names.items() if held == mapping), "")
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
