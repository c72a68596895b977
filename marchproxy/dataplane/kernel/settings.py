"""`mp_settings`: the few numbers that the programs read with every packet."""

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.natports import NatPorts
from marchproxy.model import appliance

DENIED_EVENTS_PER_SECOND = 2000
"""Refusals that each CPU tells of at most: each costs user space 30 µs. Of more only the number is known."""
REPEAT_MS = 1000
"""What a client tries again within it is told as one event with a count."""

_KEY = layouts.U32.pack(0)


class Settings:
    """The settings map: read once, written as a whole. Whoever makes one is its only writer."""

    def __init__(self, settings: Map) -> None:
        self._map = settings
        raw = settings.get(_KEY) or bytes(layouts.SETTINGS.size)
        values = layouts.SETTINGS.struct.unpack(raw)
        self._values: dict[str, int] = dict(zip(layouts.SETTINGS.fields, values, strict=True))

    @property
    def bank(self) -> int:
        """The bank that the programs read."""
        return self._values["bank"]

    @property
    def revision(self) -> int:
        """The revision in force; 0 before the first."""
        return self._values["revision"]

    @property
    def block_layers(self) -> int:
        """One bit for each layer of blocks that holds anything."""
        return self._values["block_layers"]

    def want(self, events: int) -> None:
        """Report only the kinds of events in this mask."""
        self.change(wanted_events=self._values["wanted_events"] & layouts.CAPTURING | events)

    def capture(self, wanted: bool) -> None:
        """Whether the programs look for packets to capture."""
        events = self._values["wanted_events"] & ~layouts.CAPTURING
        self.change(wanted_events=events | (layouts.CAPTURING if wanted else 0))

    def change(self, **values: int) -> None:
        """Write the named fields, all at once."""
        changed = self._values | values
        self._map.set(_KEY, layouts.SETTINGS.struct.pack(*changed.values()))
        self._values = changed

    def prepare(self, ports: NatPorts) -> None:
        """Set what holds from the start of the daemon on."""
        self.change(
            nat_first=ports.first,
            nat_count=ports.count,
            refusals_per_second=appliance.DEFAULT_SETTINGS.refusals_per_second,
            denied_events_per_second=DENIED_EVENTS_PER_SECOND,
            repeat_ms=REPEAT_MS,
            diverting=0,
        )

    def refuse_as(self, settings: appliance.Settings) -> None:
        """Answer denied clients as the appliance's settings say."""
        silent = settings.refusal is appliance.Refusal.DROP
        self.change(silent=silent, refusals_per_second=settings.refusals_per_second)

    def blocks_changed(self) -> None:
        """Make every packet's addresses be looked up among the blocks again."""
        self.change(block_epoch=(self._values["block_epoch"] + 1) & 0xFFFFFFFF)

    def routes_changed(self) -> None:
        """Make every flow look its way out up again."""
        self.change(route_epoch=(self._values["route_epoch"] + 1) & 0xFFFFFFFF)
