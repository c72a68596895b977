"""The appliance's own listeners beside those of mappings."""

from dataclasses import replace

import pytest

from marchproxy.model.appliance import ApplianceListener, ListenerKind
from marchproxy.model.endpoint import parse_endpoint
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.plan import Plan
from tests.policy.build import NOW, mapping, service, snapshot, texts


def with_dns(listen: str | None, *binds: str) -> Plan:
    own = tuple(ApplianceListener(f"dns@{bind}", ListenerKind.DNS, parse_endpoint(bind)) for bind in binds)
    mappings = [mapping("m", "all", "web", listen)] if listen else []
    made: Snapshot = replace(snapshot(service("web", "192.0.2.9"), *mappings), listeners=own)
    return compile_plan(made, now=NOW).plan


def test_dns_listeners_are_in_the_plan() -> None:
    assert [str(bind) for bind in with_dns(None, "10.1.0.1:53", "*:5353").dns] == ["10.1.0.1:53", "*:5353"]


@pytest.mark.parametrize(
    ("listen", "bind"),
    [
        ("10.1.0.1:53", "10.1.0.1:53"),
        ("*:53", "10.1.0.1:53"),
        ("10.1.0.1:53", "*:53"),
        ("10.1.0.1:53", "0.0.0.0:53"),
        ("*:53", "*:53"),
    ],
)
def test_a_mapping_in_its_place_is_an_error(listen: str, bind: str) -> None:
    found = [text for text in texts(with_dns(listen, bind).findings) if text.startswith("error")]
    assert found
    assert all(text.startswith(f"error listener dns@{bind}: listens where m does") for text in found)


@pytest.mark.parametrize(
    ("listen", "bind"),
    [("10.1.0.1:5353", "10.1.0.1:53"), ("10.1.0.2:53", "10.1.0.1:53"), ("[::1]:53", "0.0.0.0:53")],
)
def test_elsewhere_it_is_not(listen: str, bind: str) -> None:
    assert "listens where" not in "".join(texts(with_dns(listen, bind).findings))
