"""An answer in sentences: what `explain` shows, from the address to the backends."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from itertools import islice, takewhile

from marchproxy.model.address import IPAddress
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.entities import Balance, Interface, SendProxy
from marchproxy.model.ports import format_ports
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy import routes
from marchproxy.policy.actions import Actions
from marchproxy.policy.evaluate import Answer, Evaluator, Matcher, Query
from marchproxy.policy.mirrors import withheld
from marchproxy.policy.plan import (
    ICMP,
    WILDCARDS,
    Backend,
    Listener,
    Match,
    Mirror,
    Pool,
    Rule,
    TransitRule,
)

SHOWN = 8
"""Members of a list that are spelled out before the rest is only counted."""

_OUTCOMES = {
    Reason.FORWARDED: "allows it",
    Reason.DENY_MAPPING: "denies it",
    Reason.NO_BACKEND: "allows it, but has no backend of this address family",
    Reason.AUTH_MISSING: "allows it with a credential only",
    Reason.SNI_MISSING: "allows TLS only that names its host, which packets do not show",
    Reason.NOT_CARRIED: "also looks at what such traffic does not show",
}


def why(evaluator: Evaluator, query: Query) -> tuple[str, ...]:
    """How `Evaluator.evaluate` comes to its answer: sentences without full stops, in order of decision."""
    answer = evaluator.evaluate(query)
    if evaluator.is_management(query):
        return (_MANAGEMENT.format(_wanted(query)),)
    blocked = evaluator.blocked(query)
    if blocked:
        return (_blocked(query, *blocked),)
    sources = _belongs(evaluator, "source", query.source, answer.source_services)
    if answer.listener is not None:
        reaches = _reaches(query, answer.listener)
        if answer.listener.key in evaluator.reading:
            asked = _asked(query), *_routes(evaluator, answer, answer.listener, query)
            return (*sources, reaches, *asked, *_nat(evaluator, answer, query))
        rules = _rules(evaluator, answer, answer.listener)
        return (*sources, reaches, *rules, *_nat(evaluator, answer, query))
    wanted = _wanted(query)
    if query.is_local():
        said = f"no mapping listens on {wanted}: it is the appliance's own address, so the host answers"
        return (*sources, said if query.transport else _OWN_ECHO.format(query.destination))
    return (
        *sources,
        *_belongs(evaluator, "destination", query.destination, answer.destination_services),
        *_passing(evaluator, answer, wanted),
        *_nat(evaluator, answer, query),
    )


def _asked(query: Query) -> str:
    said = f"HTTP is read there, and the request is for host {query.host or 'none'}, path {query.path}"
    said += f", method {query.method}" if query.method != "GET" else ""
    _, question, parameters = query.target.partition("?")
    said += f", query {parameters}" if question else ""
    return said + "".join([f", {name}: {value}" for name, value in query.fields])


_MANAGEMENT = "{} is a management port of the appliance, so the host answers, whatever policy says"
_OWN_ECHO = "{} is the appliance's own address, so the host answers"


def _blocked(query: Query, reason: Reason, owner: str) -> str:
    kind, _, name = owner.partition(":")
    by = f"block list {name}" if kind == "block-list" else f"the block of {name}"
    if reason is Reason.BLOCKED_SOURCE:
        return f"source {query.source} is blocked by {by}: no mapping is asked"
    return f"destination {query.destination} is blocked by {by}: no mapping is asked"


def _wanted(query: Query) -> str:
    if query.transport is None:
        return f"{query.destination}/icmp"
    return f"{Endpoint(query.destination, query.port)}/{query.transport}"


def _belongs(evaluator: Evaluator, end: str, address: IPAddress, services: Sequence[str]) -> Iterator[str]:
    if not services:
        yield f"{end} {address} is in no service that a mapping names as a {end}"
    for service in services[:SHOWN]:
        prefixes = evaluator.plan.sources[service]
        because = [
            str(prefix) for prefix in prefixes if prefix.version == address.version and address in prefix
        ]
        yield f"{end} {address} is service {service} because of {_listed(because)}"
    yield from _rest(len(services), f"services contain the {end}")


def _reaches(query: Query, listener: Listener) -> str:
    wildcard = listener.address in WILDCARDS.values()
    return f"{_wanted(query)} reaches listener {listener}" + (", every local address" if wildcard else "")


def _passing(evaluator: Evaluator, answer: Answer, wanted: str) -> Iterator[str]:
    yield f"{wanted} is no listener and not the appliance's own address: it is routed"
    ends = frozenset(answer.source_services), frozenset(answer.destination_services)
    near = takewhile(lambda rule: rule is not answer.rule, evaluator.transit.between(*ends))
    passed = list(islice(near, SHOWN + 1))
    for rule in passed[:SHOWN]:
        ports = ", ".join(map(_ports, rule.matches))
        yield f"{_named(rule)} does not match: it is for both ends, but for {ports}"
    if len(passed) > SHOWN:
        yield "and more such mappings"
    yield _decides(answer.rule) if answer.rule else "no mapping matches: denied"
    yield from _opens(answer)


def _ports(match: Match) -> str:
    name = {6: "tcp", 17: "udp", ICMP: "icmp"}[match.protocol]
    return f"{name} {format_ports(match.ports)}" if match.ports else name


def _rules(evaluator: Evaluator, answer: Answer, listener: Listener) -> Iterator[str]:
    services = frozenset(answer.source_services)
    passed = list(takewhile(lambda matcher: matcher.rule is not answer.rule, evaluator.matchers(listener)))
    for matcher in passed[:SHOWN]:
        yield f"{_named(matcher.rule)} does not match: {_mismatch(matcher, services)}"
    yield from _rest(len(passed), "mappings do not match")
    if answer.rule is None:
        yield "no mapping matches the source: denied"
        return
    yield _decides(answer.rule)
    if isinstance(answer.rule, Rule) and answer.rule.tls:
        yield f"TLS is spoken before anything else, with certificate {answer.rule.tls}"
    yield from _opens(answer)
    if answer.pool is not None:
        yield from _backends(answer.rule, answer.pool)
        if isinstance(answer.rule, Rule) and answer.rule.send_proxy is not SendProxy.NONE:
            yield f"backends are told who the client is, by the PROXY protocol {answer.rule.send_proxy}"


def _routes(evaluator: Evaluator, answer: Answer, listener: Listener, query: Query) -> Iterator[str]:
    services = frozenset(answer.source_services)
    others = [each for each in evaluator.matchers(listener) if each.rule is not answer.rule]
    for matcher in others[:SHOWN]:
        yield f"{_named(matcher.rule)}{_wants(matcher.rule)} {_passed_over(matcher, services, query)}"
    yield from _rest(len(others), "mappings are not taken")
    if answer.rule is None:
        yield "no mapping is for this source and request: denied"
        allowed = evaluator.routes(listener, services).methods(query.host, query.path, query)
        if allowed:
            yield f"it would be allowed by {', '.join(allowed)}: the answer is 405"
        return
    yield f"{_decides(answer.rule)}{_wants(answer.rule)}"
    if isinstance(answer.rule, Rule) and answer.rule.tls:
        yield f"TLS is spoken there, with certificate {answer.rule.tls}"
    if listener.key in evaluator.plan.http3:
        yield "HTTP/3 is spoken there over UDP, too, and decided by the same mappings"
    if answer.openers:
        yield f"a credential of {_listed(answer.openers)} opens it, presented as Authorization"
    elif isinstance(answer.rule, Rule) and answer.rule.handling.early_data:
        yield "over HTTP/3, GET, HEAD and OPTIONS may come before the handshake is complete (0-RTT)"
    if answer.actions is not None:
        yield from _acts(answer.actions, query)
    if answer.pool is not None:
        yield from _backends(answer.rule, answer.pool)
    if isinstance(answer.rule, Rule) and answer.rule.handling.mirror is not None:
        yield from _copies(evaluator, answer.rule, answer.rule.handling.mirror, services)


def _nat(evaluator: Evaluator, answer: Answer, query: Query) -> Iterator[str]:
    """Which addresses it has behind the appliance. The way out is the routing table's, which policy does not
    know: every interface that masquerades may be it.
    """
    if not answer.verdict.lets_through:
        return
    if answer.listener is not None:
        if answer.pool is None or not answer.pool.taking:
            return
        if answer.listener.key in evaluator.plan.admitted:
            yield "NAT: none, the connection ends here, and backends see an address of the appliance"
            return
    becomes = "the destination becomes the backend's, " if answer.listener else ""
    masking = [each for each in evaluator.plan.interfaces if each.masquerade]
    out = [f"{each.name} ({_own(each, query.source.version)})" for each in masking]
    if masking:
        yield f"NAT: {becomes}the source stays {query.source} unless it leaves by {_listed(out)}"
    else:
        stays = f"the source stays {query.source}" if becomes else "none, both ends stay as they are"
        yield f"NAT: {becomes}{stays}"


def _own(interface: Interface, version: int) -> str:
    named = [text for text in interface.nat_addresses if ip_address(text).version == version]
    return f"as {_listed(named)}" if named else "as its own address"


def _copies(evaluator: Evaluator, rule: Rule, mirror: Mirror, services: frozenset[str]) -> Iterator[str]:
    some = "each request" if mirror.percent == 100 else f"{mirror.percent} of 100 requests"
    blocked = evaluator.plan.blocks.find
    taking = mirror.pool.taking
    may = [
        each for each in taking if not (blocked(each.address) or withheld(evaluator, services, each, rule))
    ]
    if may:
        where = ", ".join(_backend(backend) for backend in may[:SHOWN])
        yield f"{some} is copied to {where}, and what that answers is thrown away"
        yield from _rest(len(may), "backends get copies")
    if len(may) < len(taking):
        yield f"{len(taking) - len(may)} backends may get no copies from this source: denied or blocked"
    if not taking:
        yield "it would be copied, but there is no backend for copies that is up"


def _acts(actions: Actions, query: Query) -> Iterator[str]:
    asked = query.target or query.path
    if actions.redirect:
        yield f"the answer is {actions.status}, to {actions.location(query.host, asked, query.path)}"
        return
    target = actions.target(asked, query.path)
    if target != asked:
        yield f"the backend gets {target}"
    if actions.host:
        yield f"the backend gets the host {actions.host}"
    if actions.sticky:
        yield "a cookie of ours comes first: its browser stays with one backend"
    for what, steps in (("request", actions.request), ("answer", actions.response)):
        said = [f"{verb} {name}" + (f": {value}" if value else "") for verb, name, value in steps]
        if said:
            yield f"headers of the {what}: {', '.join(said)}"


def _wants(rule: Rule | TransitRule) -> str:
    if not isinstance(rule, Rule) or not rule.is_routed or rule.route is None:
        return ""
    wanted = [f"host {rule.route.host}"] if rule.route.host else []
    exact = "exactly " if rule.route.exact else ""
    wanted += [f"{exact}path {rule.route.path}"] if rule.route.path else []
    wanted += rule.route.conditions.words() if rule.route.conditions else []
    return f" (for {', '.join(wanted)})"


def _passed_over(matcher: Matcher, services: frozenset[str], query: Query) -> str:
    if not matcher.matches(services):
        return f"does not match: {_mismatch(matcher, services)}"
    if not routes.matches(matcher.rule, query.host, query.path):
        return "does not match: the request is for another host or path"
    failed = routes.unmet(matcher.rule, query)
    if failed:
        return f"does not match: {' and '.join(failed)} of the request is not what it wants"
    return "is not taken: another route is more specific, or comes first"


def _opens(answer: Answer) -> Iterator[str]:
    """Who would be let in all the same, and where."""
    if not answer.openers:
        return
    asks = "in the line before the client's protocol" if answer.listener else "to an explicit proxy"
    if answer.listener and answer.listener.transport is not Transport.TCP:
        return
    yield f"a credential of {_listed(answer.openers)} opens it, presented {asks}"


def _outcome(rule: Rule | TransitRule) -> str:
    if rule.reason is Reason.NO_BACKEND and isinstance(rule, Rule) and rule.pool is not None:
        return "allows it, but all its backends are down or drained"
    return _OUTCOMES[rule.reason]


def _backends(rule: Rule | TransitRule, pool: Pool) -> Iterator[str]:
    taking = pool.taking
    if taking:
        balance = rule.balance if isinstance(rule, Rule) else Balance.MAGLEV
        strategy = "" if balance is Balance.MAGLEV else f" by {balance}"
        yield f"new flows go{strategy} to " + ", ".join(_backend(backend) for backend in taking[:SHOWN])
        yield from _rest(len(taking), "backends")
    if pool.idle:
        yield "down or drained: " + ", ".join(_backend(backend) for backend in pool.idle[:SHOWN])
        yield from _rest(len(pool.idle), "backends are down or drained")


def _decides(rule: Rule | TransitRule) -> str:
    if not rule.mapping:
        return "no mapping matches: audit reports it and lets it through"
    outcome = f"{_named(rule)} matches and {_outcome(rule)}"
    if rule.audit:
        return f"{outcome}: audit reports it and lets it through"
    return outcome if rule.reason in (Reason.FORWARDED, Reason.DENY_MAPPING) else f"{outcome}: denied"


def _named(rule: Rule | TransitRule) -> str:
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


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def _rest(count: int, what: str) -> Iterator[str]:
    if count > SHOWN:
        yield f"{count - SHOWN} more {what}"
