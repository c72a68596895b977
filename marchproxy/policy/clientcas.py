"""Hosts whose mappings want certificates of clients from several CAs: a connection is asked for one kind."""

from collections.abc import Iterator

from marchproxy.policy.plan import ANY_ROUTE, Finding, Listener, Plan, Severity


def several_authorities(plan: Plan) -> Iterator[Finding]:
    """A finding for each mapping that another one for the same host keeps from letting anybody in."""
    told: set[str] = set()
    for listener in plan.listeners:
        for finding in _at(listener):
            if finding.subject not in told:
                told.add(finding.subject)
                yield finding


def _at(listener: Listener) -> Iterator[Finding]:
    asking = [rule for rule in listener.rules if rule.handling.client is not None]
    if len(asking) < 2:
        return
    # The longest path is looked at first, see `Visitor.demand`.
    asking.sort(key=lambda rule: len((rule.route or ANY_ROUTE).path), reverse=True)
    first = {(rule.route or ANY_ROUTE).host: rule for rule in reversed(asking)}
    for rule in asking:
        winner = first[(rule.route or ANY_ROUTE).host]
        if winner.handling.client != rule.handling.client:
            message = (
                f"wants certificates of clients from another CA, or with other revocation lists, than"
                f" {winner.mapping} for the same host at {listener}, and lets nobody in there"
            )
            hint = "give both the same --client-ca and --client-crl, with all CAs in one file"
            yield Finding(Severity.WARNING, f"mapping {rule.mapping}", message, hint)
