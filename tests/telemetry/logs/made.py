"""Invented records."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from marchproxy.model.reason import Reason, Tier, Verdict
from marchproxy.telemetry.logs.records import (
    Carried,
    FlowRecord,
    Happening,
    LogClass,
    Message,
    RequestRecord,
    Severity,
)

NOON = 1_800_000_000.25
"""2027-01-15T08:00:00.250Z."""
NETFLOW = frozenset({LogClass.NETFLOW})
BOTH = frozenset({LogClass.NETFLOW, LogClass.AUTH})


def ended(**fields: Any) -> FlowRecord:
    """A flow of 2.5 s that has ended."""
    made = FlowRecord(
        cluster="default",
        classes=NETFLOW,
        happening=Happening.END,
        time=NOON,
        id=4711,
        source=ip_address("10.1.0.2"),
        source_port=40001,
        destination=ip_address("10.1.0.1"),
        destination_port=80,
        protocol="tcp",
        tier=Tier.TC,
        verdict=Verdict.ALLOW,
        reason=Reason.CLOSED,
        mapping="default/web",
        revision=3,
        source_service="default/clients",
        destination_service="default/web",
        name="",
        interface="eth0",
        count=1,
        carried=Carried(ip_address("10.2.0.3"), 8080, NOON - 2.5, 10, 1000, 20, 30000),
    )
    return replace(made, **fields)


def ended6(**fields: Any) -> FlowRecord:
    """The same by IPv6."""
    carried = Carried(ip_address("fd02::3"), 8080, NOON - 2.5, 10, 1000, 20, 30000)
    places = {"source": ip_address("fd01::2"), "destination": ip_address("fd01::1"), "carried": carried}
    return ended(**{**places, **fields})


def denied(**fields: Any) -> FlowRecord:
    """Three packets that no mapping allows."""
    refusal = {
        "happening": Happening.DENIED,
        "id": 0,
        "verdict": Verdict.DENY,
        "reason": Reason.NO_MAPPING,
        "mapping": "",
        "destination_service": "",
        "count": 3,
        "carried": None,
    }
    return ended(**{**refusal, **fields})


def message(text: str = "10.2.0.3:80 is down", **fields: Any) -> Message:
    """Something of class debug."""
    made = Message("default", "backend", NOON, Severity.WARNING, text, (("service", "default/web"),))
    return replace(made, **fields)


def asked(**fields: Any) -> RequestRecord:
    """A request that was answered in 12.5 ms."""
    made = RequestRecord(
        cluster="default",
        time=NOON,
        id=4711,
        request_id="c0ffee-1",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        source=ip_address("10.1.0.2"),
        source_port=40001,
        destination=ip_address("10.1.0.1"),
        destination_port=443,
        source_service="clients",
        mapping="shop",
        route="shop.example/cart",
        service="web",
        backend="10.2.0.3:8080",
        method="GET",
        host="shop.example",
        path="/cart",
        version="1.1",
        tls="TLSv1.3",
        status=200,
        verdict=Verdict.ALLOW,
        reason=Reason.FORWARDED,
        revision=3,
        bytes_sent=0,
        bytes_received=30,
        attempts=1,
        mirror="",
        early_data=False,
        connected=0.001,
        waited=0.0115,
        took=0.0125,
    )
    return replace(made, **fields)
