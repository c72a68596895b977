"""Which records a client asked for, from the query of a request."""

from collections.abc import Callable, Mapping
from typing import Any

from marchproxy.dataplane.flowquery import FlowFilter, FlowOrder, SortKey
from marchproxy.dataplane.flowtotals import Grouping
from marchproxy.dataplane.logring import LEVELS, LogQuestion
from marchproxy.dataplane.toplists import REASON, TopOrder, TopQuestion
from marchproxy.model.address import Prefix, parse_ip, parse_prefix
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port
from marchproxy.model.reason import Reason

DEFAULT_LIMIT = 1_000
MAX_LIMIT = 1_000_000


def read_limit(query: Mapping[str, str], default: int = DEFAULT_LIMIT) -> int:
    """The parameter `limit`, 1 to `MAX_LIMIT`."""
    return _number("limit", query.get("limit", str(default)), least=1)


def read_offset(query: Mapping[str, str]) -> int:
    """The parameter `offset`, 0 to `MAX_LIMIT`."""
    return _number("offset", query.get("offset", "0"), least=0)


def _number(name: str, text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 7 or not least <= int(text) <= MAX_LIMIT:
        raise InvalidValue(name, text, f"a number from {least} to {MAX_LIMIT}")
    return int(text)


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is 0 or 1."""
    text = query.get(name, "0")
    if text not in ("0", "1"):
        raise InvalidValue(name, text, "0 or 1")
    return text == "1"


def read_order(query: Mapping[str, str]) -> FlowOrder | None:
    """The parameter `sort`: a key of flows, with a leading `-` for the highest first; None: not given."""
    text = query.get("sort")
    if text is None:
        return None
    try:
        return FlowOrder(SortKey(text.removeprefix("-")), descending=text.startswith("-"))
    except ValueError:
        raise InvalidValue(
            "sort", text, "one of " + ", ".join(SortKey) + ", maybe with a leading -"
        ) from None


def read_grouping(query: Mapping[str, str]) -> tuple[TopQuestion, TopOrder]:
    """The parameters `by`, `denied` and `sort` of a list of who carries, or is refused, most."""
    groupings = (*Grouping, REASON)
    by, text = query.get("by", Grouping.SERVICE.value), query.get("sort", TopOrder.BYTES_PER_S.value)
    if by not in groupings:
        raise InvalidValue("by", by, "one of " + ", ".join(groupings))
    try:
        return TopQuestion(by, read_flag(query, "denied")), TopOrder(text)
    except ValueError:
        raise InvalidValue("sort", text, "one of " + ", ".join(TopOrder)) from None


def read_log_question(query: Mapping[str, str]) -> LogQuestion:
    """The parameters `level` and `text` of what the daemon logs."""
    expect_only(query, frozenset({"level", "text", "limit", "follow"}))
    least = query.get("level", LEVELS[0])
    if least not in LEVELS:
        raise InvalidValue("level", least, "one of " + ", ".join(LEVELS))
    return LogQuestion(least, query.get("text", "").lower())


def read_filter(query: Mapping[str, str], *, beside: frozenset[str] = frozenset()) -> FlowFilter:
    """A condition for each parameter; `beside` are parameters that others read. Raises `InvalidValue`."""
    expect_only(query, beside | set(_CONDITIONS))
    return FlowFilter(**{name: _CONDITIONS[name](query[name]) for name in query if name in _CONDITIONS})


def expect_only(query: Mapping[str, str], known: frozenset[str]) -> None:
    """Refuse parameters beside `known`."""
    if unknown := set(query) - known:
        raise InvalidValue("parameter", min(unknown), "one of " + ", ".join(sorted(known)))


def _prefix(field: str) -> Callable[[str], Prefix]:
    """A prefix; a single address is one too."""

    def read(text: str) -> Prefix:
        address = text if "/" in text else str(parse_ip(text, field=field))
        return parse_prefix(address, field=field)

    return read


def _reason(text: str) -> Reason:
    try:
        return Reason[text.upper()]
    except KeyError:
        raise InvalidValue("reason", text, "the name of a reason, such as NO_MAPPING") from None


_CONDITIONS: dict[str, Callable[[str], Any]] = {
    "source": _prefix("source"),
    "destination": _prefix("destination"),
    "port": parse_port,
    "mapping": str,
    "service": str,
    "reason": _reason,
    "protocol": str.lower,
    "text": str.lower,
}
