"""An answer in sentences: what `explain` shows, from the address to the backends."""

from collections.abc import Iterator
from itertools import takewhile

from marchproxy.model.endpoint import Endpoint
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Answer, Evaluator, Matcher, Query
from marchproxy.policy.plan import WILDCARDS, Backend, Listener, Rule

SHOWN = 8
"""Members of a list that are spelled out before the rest is only counted."""

_OUTCOMES = {
    Reason.FORWARDED: "allows it",
    Reason.DENY_MAPPING: "denies it",
    Reason.NO_BACKEND: "allows it, but has no backend of this address family: denied",
    Reason.AUTH_MISSING: "allows it with a credential only, which this version cannot check: denied",
    Reason.NOT_CARRIED: "also looks at host or path, which this version does not carry: denied",
}


def why(evaluator: Evaluator, query: Query) -> tuple[str, ...]:
    """How `Evaluator.evaluate` comes to its answer: sentences without full stops, in order of decision."""
    answer = evaluator.evaluate(query)
    return (
        *_source(evaluator, query, answer),
        *_listener(query, answer.listener),
        *_rules(evaluator, answer),
    )


def _source(evaluator: Evaluator, query: Query, answer: Answer) -> Iterator[str]:
    if not answer.source_services:
        yield f"source {query.source} is in no service that a listening mapping names as a source"
    for service in answer.source_services[:SHOWN]:
        prefixes = evaluator.plan.sources[service]
        because = [
            str(prefix)
            for prefix in prefixes
            if prefix.version == query.source.version and query.source in prefix
        ]
        yield f"source {query.source} is service {service} because of {_listed(because)}"
    yield from _rest(len(answer.source_services), "services contain the source")


def _listener(query: Query, listener: Listener | None) -> Iterator[str]:
    wanted = f"{Endpoint(query.destination, query.port)}/{query.transport}"
    if listener is not None:
        wildcard = listener.address in WILDCARDS.values()
        yield f"{wanted} reaches listener {listener}" + (", every local address" if wildcard else "")
    elif query.is_local():
        yield f"no mapping listens on {wanted}: it is the appliance's own address, so the host answers"
    else:
        yield f"no mapping listens on {wanted}, and it is not the appliance's own address: denied"


def _rules(evaluator: Evaluator, answer: Answer) -> Iterator[str]:
    if answer.listener is None:
        return
    services = frozenset(answer.source_services)
    passed = list(
        takewhile(lambda matcher: matcher.rule is not answer.rule, evaluator.matchers(answer.listener))
    )
    for matcher in passed[:SHOWN]:
        yield f"{_named(matcher.rule)} does not match: {_mismatch(matcher, services)}"
    yield from _rest(len(passed), "mappings do not match")
    if answer.rule is None:
        yield "no mapping matches the source: denied"
        return
    yield f"{_named(answer.rule)} matches and {_OUTCOMES[answer.rule.reason]}"
    if answer.pool is not None:
        backends = answer.pool.backends
        yield "new flows go to " + ", ".join(_backend(backend) for backend in backends[:SHOWN])
        yield from _rest(len(backends), "backends")


def _named(rule: Rule) -> str:
    return f"mapping {rule.mapping} (priority {rule.priority}, {rule.action})"


def _mismatch(matcher: Matcher, services: frozenset[str]) -> str:
    excluding = sorted(services & matcher.excluded)
    if excluding:
        return f"it is for external, and the source is in {_listed(excluding)}"
    if not matcher.rule.sources:
        return "its sources contain no service"
    return f"it is for {_listed(matcher.rule.sources)}"


def _backend(backend: Backend) -> str:
    weight = f", weight {backend.weight}" if backend.weight != 1 else ""
    return f"{Endpoint(backend.address, backend.port)} ({backend.service}{weight})"


def _listed(items: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _rest(count: int, what: str) -> Iterator[str]:
    if count > SHOWN:
        yield f"{count - SHOWN} more {what}"
