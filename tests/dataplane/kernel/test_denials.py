"""denials: what is refused, by name, whichever processor refused it."""

from collections.abc import Iterator
from ipaddress import ip_address

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.denials import read_denials, read_untold
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.records import Denials, Traffic
from marchproxy.model.reason import Reason
from tests.dataplane.kernel.fakes import FakeMap

NEWER = 63
"""A reason that this version does not know."""


class PerCpu(FakeMap):
    """Two processors that have counted the same."""

    def items_percpu(self, batch: int = 0) -> Iterator[tuple[bytes, list[bytes]]]:
        return ((key, [value, value]) for key, value in self.items())


def denied(*entries: tuple[int, int, int]) -> PerCpu:
    made = PerCpu("denied")
    for number, (mapping, reason, kind) in enumerate(entries, 1):
        made.set(
            layouts.DENIED_KEY.struct.pack(mapping, reason, kind),
            layouts.COUNTER.struct.pack(number, 100 * number),
        )
    return made


def test_denials_have_the_names_of_their_mappings() -> None:
    names = MappingNames(FakeMap("mapping_names", value_size=128))
    number = names.number("shop/no")
    found = read_denials(
        denied(
            (number, Reason.DENY_MAPPING, layouts.EVENT_DENIED),
            (0, Reason.NO_MAPPING, layouts.EVENT_AUDITED),
            (0, NEWER, layouts.EVENT_DENIED),
        ),
        names,
    )
    assert found == (
        Denials(Reason.DENY_MAPPING, "shop/no", False, Traffic(2, 200)),
        Denials(Reason.NO_MAPPING, "", True, Traffic(4, 400)),
    )


def test_what_is_told_with_the_next_attempt_is_known_before() -> None:
    names = MappingNames(FakeMap("mapping_names", value_size=128))
    number = names.number("shop/no")
    repeats = FakeMap("repeats")

    def put(source: str, reason: int, kind: int, more: int) -> None:
        ends = layouts.pack_address(ip_address(source)), layouts.pack_address(ip_address("192.0.2.1"))
        key = (*ends, number, layouts.pack_port(80), layouts.TCP, reason, kind)
        repeats.set(layouts.REPEAT_KEY.struct.pack(*key), layouts.REPEAT.struct.pack(1, more))

    put("10.0.0.1", Reason.DENY_MAPPING, layouts.EVENT_DENIED, 4)
    put("10.0.0.2", Reason.DENY_MAPPING, layouts.EVENT_DENIED, 0)
    put("10.0.0.3", Reason.NO_MAPPING, layouts.EVENT_AUDITED, 5)
    put("10.0.0.4", NEWER, layouts.EVENT_DENIED, 6)
    (found,) = read_untold(repeats, names)
    assert (str(found.source), str(found.destination), found.destination_port) == (
        "10.0.0.1",
        "192.0.2.1",
        80,
    )
    assert (found.protocol, found.reason, found.mapping) == ("tcp", Reason.DENY_MAPPING, "shop/no")
    assert found.count == 4
