"""What a mapping says about its requests, as rules have it."""

from marchproxy.model.entities import Mapping
from marchproxy.model.readers import RATES
from marchproxy.model.rules import OF_REQUESTS
from marchproxy.policy.plan import DEFAULT_HANDLING, ClientTls, Handling, RequestLimit


def handling_of(mapping: Mapping) -> Handling:
    """Its fields; where all are at their defaults `DEFAULT_HANDLING` itself, which costs a plan nothing."""
    if all(getattr(mapping, name) == default for name, default in OF_REQUESTS.items()):
        return DEFAULT_HANDLING
    return Handling(
        connect=mapping.connect_timeout,
        response=mapping.response_timeout,
        idle=mapping.idle_timeout,
        retry_on=frozenset(str(each) for each in mapping.retry_on),
        retry_budget=mapping.retry_budget / 100,
        eject_after=mapping.eject_after,
        eject_for=float(mapping.eject_for),
        eject_most=mapping.eject_most / 100,
        max_requests=mapping.max_requests,
        max_waiting=mapping.max_waiting,
        limit=_limit(mapping),
        client=ClientTls(mapping.client_ca, mapping.client_crl) if mapping.client_ca else None,
        client_names=mapping.client_names,
        trace=mapping.trace,
        early_data=mapping.early_data,
    )


def _limit(mapping: Mapping) -> RequestLimit | None:
    if mapping.limit_requests is None:
        return None
    digits, _, unit = mapping.limit_requests.partition("/")
    burst = mapping.limit_burst or int(digits)
    return RequestLimit(int(digits) / RATES[unit], burst, mapping.limit_per)
