"""Policies with rate limits, in few words."""

from dataclasses import replace
from typing import Any

from marchproxy.model.address import parse_prefix
from marchproxy.model.appliance import Limit, Per
from marchproxy.policy.plan import Plan, RateLimit
from tests.bpf.policies import OPEN
from tests.policy.build import plan


def rate(
    name: str, per: str, sources: dict[str, str] | None = None, exempt: str = "", **rates: Any
) -> RateLimit:
    """A limit. `sources` are services with their prefixes, separated by commas, as `exempt` is."""
    services = {service: _prefixes(text) for service, text in (sources or {}).items()}
    limit = Limit(name, Per(per), tuple(services), exempt=_prefixes(exempt), **rates)
    return RateLimit(limit, tuple(services.items()))


def packets(per: str, per_second: int, burst: int | None = None, **fields: Any) -> RateLimit:
    """A limit of packets."""
    return rate(f"{per}-packets", per, packets_per_second=per_second, burst=burst, **fields)


def limited(*limits: RateLimit) -> Plan:
    """A listener for everybody at port 80, TCP and UDP, under limits."""
    return replace(plan(*OPEN), limits=limits)


def _prefixes(text: str) -> tuple[Any, ...]:
    return tuple(parse_prefix(part) for part in text.split(",") if part)
