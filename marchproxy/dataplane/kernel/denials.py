"""What the programs have refused: by mapping and reason, and what of it nobody was told of."""

import time
from collections.abc import Iterator

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.records import protocol_name
from marchproxy.dataplane.records import Decision, Denials, Traffic
from marchproxy.model.reason import Reason, Tier, Verdict


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


def read_untold(repeats: Map, names: MappingNames) -> Iterator[Decision]:
    """What clients have tried again, to be told with their next attempt: a record for each client, goal and
    port, which has no time of its own. Which program refused is not known.
    """
    now = time.time()
    for key, value in repeats.items():
        _, more = layouts.REPEAT.struct.unpack(value)
        source, destination, mapping, port, protocol, reason, kind = layouts.REPEAT_KEY.struct.unpack(key)
        if more and kind == layouts.EVENT_DENIED and reason in _KNOWN:
            yield Decision(
                time=now,
                id=0,
                source=layouts.read_address(source),
                source_port=0,
                destination=layouts.read_address(destination),
                destination_port=layouts.read_port(port),
                protocol=protocol_name(protocol),
                tier=Tier.TC,
                verdict=Verdict.DENY,
                reason=Reason(reason),
                mapping=names.name(mapping),
                count=more,
            )


_KNOWN = frozenset(Reason)
