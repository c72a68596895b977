"""What names look like to an operator: their state, and what is wrong.

What is wrong is logged when it changes, so the sentences say since when, and do not count.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from math import inf

from marchproxy.dataplane.names.asker import Asker
from marchproxy.dataplane.names.following import Following
from marchproxy.dataplane.names.found import Failure
from marchproxy.dataplane.names.held import MOST, HeldAddresses
from marchproxy.dataplane.names.table import NameTable
from marchproxy.dataplane.status import AddressState, NameState

NAMED = 10
"""Names that do not resolve, each with a problem of its own; of further ones the number is told."""

_SILENCE = frozenset({Failure.TIMEOUT, Failure.UNREACHABLE})


def name_state(name: str, held: HeldAddresses, following: Following | None, now: float) -> NameState:
    """One name at `now`, by the clock of its addresses."""
    addresses = tuple(
        AddressState(address, each.fresh_until > now, _left(each.fresh_until, each.gone_at, now))
        for address, each in held.items()
    )
    if following is None:
        return NameState(name, "learning", addresses, unlearned=held.unlearned)
    failure = following.failure
    state = "failing" if failure else "resolved" if following.since else "waiting"
    return NameState(
        name,
        state,
        addresses,
        failure.value if failure else "",
        following.since,
        following.ttl,
        following.refused,
    )


def name_problems(asker: Asker, following: Mapping[str, Following], table: NameTable) -> list[str]:
    """What is wrong, one sentence each."""
    found = list(_silent_servers(asker, following, table))
    failing = [
        _failing(name, state, table[name])
        for name, state in sorted(following.items())
        if state.failure and not (asker.is_down and state.failure in _SILENCE)
    ]
    found += failing[:NAMED]
    if len(failing) > NAMED:
        found.append(
            f"{len(failing) - NAMED} more names do not resolve: marchproxy status --output json lists them"
        )
    found += [_refused(name, state) for name, state in sorted(following.items()) if state.refused][:NAMED]
    found += [
        f"{name} has {MOST} addresses, the most that are kept: further ones are not allowed by it"
        for name in sorted(table)
        if table[name].unlearned
    ]
    return found


def _silent_servers(asker: Asker, following: Mapping[str, Following], table: NameTable) -> Iterator[str]:
    down = asker.is_down
    if not asker.servers:
        yield "all DNS servers are this appliance's own listeners: name another by appliance set --resolver"
    for server, silence in asker.silent.items():
        kept = "the last good addresses of names stay in use" if down else "others answer in its place"
        yield f"DNS server {server}: {silence.failure.value}; {kept}"
    lost = [
        name
        for name, state in sorted(following.items())
        if down and state.failure in _SILENCE and not len(table[name])
    ]
    if lost:
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        yield f"never resolved, so nothing is allowed by them: {', '.join(lost[:NAMED])}{more}"


def _failing(name: str, state: Following, held: HeldAddresses) -> str:
    kept = "its last good addresses stay in use" if len(held) else "nothing is allowed by it"
    reason = state.failure.value if state.failure else ""
    return f"{name} does not resolve: {reason}, since {_instant(state.since)}; {kept}"


def _refused(name: str, state: Following) -> str:
    told = ", ".join(f"{address} is {what}" for address, what in list(state.refused.items())[:3])
    return f"{name} may not resolve to inside addresses: {told}; if meant: --private-answer {name}"


def _left(fresh_until: float, gone_at: float, now: float) -> float | None:
    end = fresh_until if fresh_until > now else gone_at
    return None if end == inf else max(0.0, end - now)


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
