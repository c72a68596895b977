"""`mp_settings`: the few numbers that the programs read with every packet."""

from dataclasses import dataclass

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map

_KEY = layouts.U32.pack(0)
REFUSALS_PER_SECOND = 1000
"""TCP resets and ICMP errors that each CPU sends at most; Linux's own default for ICMP is of the same order."""


@dataclass(frozen=True, slots=True)
class NatPorts:
    """Source ports towards backends: `count` ports from `first`. Apart from the usual ephemeral range (32768-60999)."""

    first: int = 10240
    count: int = 22528


class Settings:
    """The settings map: read once, written as a whole."""

    def __init__(self, settings: Map) -> None:
        self._map = settings
        raw = settings.get(_KEY) or bytes(layouts.SETTINGS.size)
        self._values: dict[str, int] = dict(zip(layouts.SETTINGS.fields, layouts.SETTINGS.struct.unpack(raw), strict=True))

    @property
    def bank(self) -> int:
        """The bank that the programs read."""
        return self._values["bank"]

    @property
    def revision(self) -> int:
        """The revision in force; 0 before the first."""
        return self._values["revision"]

    def change(self, **values: int) -> None:
        """Write the named fields."""
        self._values.update(values)
        self._map.set(_KEY, layouts.SETTINGS.struct.pack(*self._values.values()))

    def prepare(self, ports: NatPorts) -> None:
        """What holds from the start of the daemon on."""
        self.change(nat_first=ports.first, nat_count=ports.count, refusals_per_second=REFUSALS_PER_SECOND)

    def routes_changed(self) -> None:
        """Make every flow look its way out up again."""
        self.change(route_epoch=(self._values["route_epoch"] + 1) & 0xFFFFFFFF)
