"""Numbers for mappings. The kernel keeps them beside the flows that carry them: both survive the daemon."""

from collections.abc import Sequence

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.runs import PlanTooLarge


class MappingNames:
    """Qualified mapping names (`cluster/mapping`, at most 127 bytes) to numbers from 1 and back.

    A number is never reused while the maps are pinned: an old flow must not be shown under a new mapping's
    name.
    """

    def __init__(self, names: Map) -> None:
        self._map = names
        self._names = {
            layouts.U32.unpack(key)[0]: value.rstrip(b"\0").decode() for key, value in names.items()
        }
        self._numbers = {name: number for number, name in self._names.items()}

    def number(self, name: str) -> int:
        """The mapping's number, given out on first use."""
        number = self._numbers.get(name)
        if number is None:
            number = len(self._names) + 1
            if number > self._map.max_entries:
                raise PlanTooLarge(
                    f"more than {self._map.max_entries} mappings were named since the tables were created",
                    hint="run: marchproxy detach, then start the daemon again",
                )
            self._map.set(layouts.U32.pack(number), name.encode().ljust(self._map.value_size, b"\0"))
            self._names[number] = name
            self._numbers[name] = number
        return number

    def all(self) -> Sequence[str]:
        """Every name that has a number."""
        return tuple(self._numbers)

    def name(self, number: int) -> str:
        """The mapping's name, empty for 0 and unknown numbers."""
        return self._names.get(number, "")
