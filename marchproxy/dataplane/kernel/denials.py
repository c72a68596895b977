"""What the programs have refused, by mapping and reason."""

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.records import Denials, Traffic
from marchproxy.model.reason import Reason


def read_denials(denied: Map, names: MappingNames) -> tuple[Denials, ...]:
    """All that is counted, summed over the processors. Reasons of a newer version are left out."""
    found = []
    for key, cells in denied.items_percpu():
        mapping, reason, kind = layouts.DENIED_KEY.struct.unpack(key)
        if reason not in _KNOWN:
            continue
        packets, octets = map(sum, zip(*map(layouts.COUNTER.struct.unpack, cells), strict=True))
        audited = kind == layouts.EVENT_AUDITED
        found.append(Denials(Reason(reason), names.name(mapping), audited, Traffic(packets, octets)))
    return tuple(found)


_KNOWN = frozenset(Reason)
