"""What a change would cut: the running flows that the policy to be would no longer allow."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from marchproxy.dataplane.hostaddresses import is_local
from marchproxy.dataplane.records import Flow
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Evaluator, Query
from marchproxy.policy.plan import Plan

SCANNED = 100_000
"""Flows that are looked at: two seconds of work. A busier table is previewed in part, and that is said."""
LISTED = 1_000

_TRANSPORTS: dict[str, Transport | None] = {"tcp": Transport.TCP, "udp": Transport.UDP, "icmp": None}


@dataclass(frozen=True, slots=True)
class Cut:
    """A flow that would end."""

    flow: Flow
    reason: Reason
    """Why a new one like it would be refused."""
    mapping: str
    """Qualified name of the mapping that would refuse it; empty where none would allow it."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of the running flows."""

    looked_at: int
    complete: bool
    """Whether there were no more."""
    count: int
    """Flows that would end, of those looked at."""
    cuts: tuple[Cut, ...]
    """The first `LISTED` of them."""
    unresolved: tuple[str, ...] = ()
    """Host names without an address yet: what they would allow is counted as cut."""


def preview(plan: Plan, flows: Iterable[Flow], *, complete: bool, unresolved: Iterable[str] = ()) -> Preview:
    """Ask `plan` about each flow, as the review after a change of policy does."""
    evaluator, local = Evaluator(plan), functools.cache(is_local)
    ask = functools.cache(evaluator.evaluate)
    cuts: list[Cut] = []
    looked_at = count = 0
    for flow in flows:
        looked_at += 1
        answer = _answer(flow, ask, local)
        if answer is None or answer.keeps:
            continue
        count += 1
        if len(cuts) < LISTED:
            cuts.append(Cut(flow, answer.reason, answer.mapping))
    return Preview(looked_at, complete, count, tuple(cuts), tuple(sorted(unresolved)))


def _answer(flow: Flow, ask: Callable[[Query], Answer], local: Callable[..., bool]) -> Answer | None:
    """None for a protocol that policy has no word for."""
    asked = flow.decision
    if asked.protocol not in _TRANSPORTS:
        return None
    transport = _TRANSPORTS[asked.protocol]
    port = asked.destination_port if transport else 0
    return ask(Query(asked.source, asked.destination, port, transport, local))
