"""What audit saw: who wanted to talk to whom and would have been refused. Values, and their JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from marchproxy.model.address import IPAddress, Prefix, parse_ip, parse_prefix
from marchproxy.model.errors import InvalidValue
from marchproxy.model.reason import Reason

type Document = dict[str, Any]

PROTOCOLS = ("tcp", "udp", "icmp")


@dataclass(frozen=True, slots=True)
class Observation:
    """All flows from one source to one end: an address, a protocol and a port."""

    source: Prefix
    """One address, or where there are many the network around them."""
    destination: IPAddress
    protocol: str
    """One of `PROTOCOLS`."""
    port: int
    """The destination's; 0 for ICMP."""
    reason: Reason
    """Why audit would have refused them."""
    mapping: str = ""
    """Qualified name of the mapping that would have; empty: none would have allowed them."""
    source_service: str = ""
    """Qualified, empty for a stranger, as of the last flow."""
    destination_service: str = ""
    name: str = ""
    """Host name that the client was given the destination for, if it asked our DNS listener."""
    count: int = 1
    first: float = 0.0
    """Seconds since the epoch."""
    last: float = 0.0


def to_document(observation: Observation) -> Document:
    """JSON values; times are RFC 3339."""
    return {
        "source": str(observation.source),
        "destination": str(observation.destination),
        "protocol": observation.protocol,
        "port": observation.port,
        "reason": observation.reason.name,
        "mapping": observation.mapping,
        "source_service": observation.source_service,
        "destination_service": observation.destination_service,
        "name": observation.name,
        "count": observation.count,
        "first": _instant(observation.first),
        "last": _instant(observation.last),
    }


def read_observation(document: object) -> Observation:
    """What `to_document` wrote. Raises `InvalidValue`."""
    try:
        return _read(document)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidValue("observation", document, f"an object as learn show prints it ({error})") from None


def read_observations(documents: Iterable[object]) -> tuple[Observation, ...]:
    """All of them. Raises `InvalidValue`."""
    return tuple(map(read_observation, documents))


def _read(document: Any) -> Observation:
    protocol, port = document["protocol"], document["port"]
    if protocol not in PROTOCOLS or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ValueError(f"protocol {protocol!r}, port {port!r}")
    if not isinstance(document["count"], int) or document["count"] < 1:
        raise ValueError(f"count {document['count']!r}")
    return Observation(
        source=parse_prefix(document["source"], field="source"),
        destination=parse_ip(document["destination"], field="destination"),
        protocol=protocol,
        port=port,
        reason=Reason[document["reason"]],
        mapping=_text(document["mapping"]),
        source_service=_text(document["source_service"]),
        destination_service=_text(document["destination_service"]),
        name=_text(document["name"]),
        count=document["count"],
        first=datetime.fromisoformat(document["first"]).timestamp(),
        last=datetime.fromisoformat(document["last"]).timestamp(),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
