"""The appliance's own listeners beside those of mappings."""

from dataclasses import replace

import pytest

from marchproxy.model.address import parse_prefix
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


def test_who_speaks_for_clients_is_in_the_plan() -> None:
    bind, balancer = parse_endpoint("*:3128"), parse_prefix("10.1.0.5")
    own = ApplianceListener("explicit@*:3128", ListenerKind.EXPLICIT, bind, None, (balancer,))
    plan = compile_plan(replace(snapshot(), listeners=(own,)), now=NOW).plan
    assert plan.introduced == {bind: (balancer,)}


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


def with_explicit(listen: str, protocols: str, *names: str) -> Plan:
    own = [name.partition("@") for name in names]
    every = tuple(
        ApplianceListener(f"{kind}@{bind}", ListenerKind(kind), parse_endpoint(bind)) for kind, _, bind in own
    )
    made = replace(
        snapshot(service("web", "192.0.2.9"), mapping("m", "all", "web", listen, protocols)), listeners=every
    )
    return compile_plan(made, now=NOW).plan


def test_explicit_proxies_are_in_the_plan_and_in_the_way_of_tcp_only() -> None:
    found = with_explicit("10.1.0.1:3128", "udp", "explicit@10.1.0.1:3128", "explicit@*:3129")
    assert [str(bind) for bind in found.explicit] == ["10.1.0.1:3128", "*:3129"]
    assert "listens where" not in "".join(texts(found.findings))
    found = with_explicit("10.1.0.1:3128", "tcp,udp", "explicit@10.1.0.1:3128")
    assert "error listener explicit@10.1.0.1:3128: listens where m does" in "".join(texts(found.findings))


def test_two_kinds_on_one_port_are_an_error() -> None:
    found = with_explicit("10.1.0.1:80", "tcp", "dns@10.1.0.1:53", "explicit@*:53")
    said = "error listener explicit@*:53: has the port of dns@10.1.0.1:53, which speaks something else"
    assert said in texts(found.findings)


def test_which_of_them_speak_tls_and_with_what() -> None:
    plain, secured = parse_endpoint("10.1.0.1:3128"), parse_endpoint("*:3129")
    own = (
        ApplianceListener(f"explicit@{plain}", ListenerKind.EXPLICIT, plain),
        ApplianceListener(f"explicit@{secured}", ListenerKind.EXPLICIT, secured, "lab/proxy"),
    )
    made = compile_plan(replace(snapshot(), listeners=own), now=NOW).plan
    assert made.explicit == (plain, secured)
    assert dict(made.tls) == {secured: "lab/proxy"}
    assert made.certificates == {"lab/proxy"}
