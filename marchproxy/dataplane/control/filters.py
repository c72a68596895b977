"""Which records a client asked for, from the query of a request."""

from collections.abc import Callable, Mapping

from marchproxy.dataplane.records import Decision
from marchproxy.model.address import IPAddress, parse_ip, parse_prefix
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port
from marchproxy.model.reason import Reason

type Condition = Callable[[Decision], bool]

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 1_000_000


def read_limit(query: Mapping[str, str]) -> int:
    """The parameter `limit`, 1 to `MAX_LIMIT`."""
    text = query.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit()) or len(text) > 7 or not 1 <= int(text) <= MAX_LIMIT:
        raise InvalidValue("limit", text, f"a number from 1 to {MAX_LIMIT}")
    return int(text)


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is 0 or 1."""
    text = query.get(name, "0")
    if text not in ("0", "1"):
        raise InvalidValue(name, text, "0 or 1")
    return text == "1"


def read_conditions(query: Mapping[str, str], *, beside: frozenset[str]) -> tuple[Condition, ...]:
    """A condition for each parameter; `beside` are parameters that others read. Raises `InvalidValue`."""
    unknown = set(query) - set(_CONDITIONS) - beside
    if unknown:
        raise InvalidValue(
            "parameter", min(unknown), "one of " + ", ".join(sorted(beside | set(_CONDITIONS)))
        )
    return tuple(_CONDITIONS[name](query[name]) for name in query if name in _CONDITIONS)


def _within(field: str) -> Callable[[str], Condition]:
    """The address in `field` lies in a prefix; a single address is a prefix too."""

    def read(text: str) -> Condition:
        if "/" in text:
            prefix = parse_prefix(text, field=field)
            return lambda decision: _address(decision, field) in prefix
        address = parse_ip(text, field=field)
        return lambda decision: _address(decision, field) == address

    return read


def _address(decision: Decision, field: str) -> IPAddress:
    return decision.source if field == "source" else decision.destination


def _port(text: str) -> Condition:
    port = parse_port(text)
    return lambda decision: port in (decision.source_port, decision.destination_port)


def _mapping(text: str) -> Condition:
    return lambda decision: _named(decision.mapping, text)


def _service(text: str) -> Condition:
    return lambda decision: (
        _named(decision.source_service, text) or _named(decision.destination_service, text)
    )


def _named(qualified: str, text: str) -> bool:
    """`cluster/name` is meant by itself and by `name`."""
    return bool(qualified) and text in (qualified, qualified.partition("/")[2])


def _reason(text: str) -> Condition:
    try:
        reason = Reason[text.upper()]
    except KeyError:
        raise InvalidValue("reason", text, "the name of a reason, such as NO_MAPPING") from None
    return lambda decision: decision.reason is reason


def _protocol(text: str) -> Condition:
    protocol = text.lower()
    return lambda decision: decision.protocol == protocol


_CONDITIONS: dict[str, Callable[[str], Condition]] = {
    "source": _within("source"),
    "destination": _within("destination"),
    "port": _port,
    "mapping": _mapping,
    "service": _service,
    "reason": _reason,
    "protocol": _protocol,
}
