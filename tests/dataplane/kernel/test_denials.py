"""denials: what is refused, by name, whichever processor refused it."""

from collections.abc import Iterator

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.denials import read_denials
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
