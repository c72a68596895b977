"""early: which requests go on before a handshake is complete, and what they say of it."""

from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.http.early import hastened, may_hasten
from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.policy.evaluate import Evaluator
from tests.clientcerts import ClientAuthority
from tests.policy import build
from tests.policy.build import mapping, service

AT = "192.0.2.1:443"


def visitor(**fields: Any) -> Visitor:
    """At hosts that take early data, do not, and deny."""

    def on(name: str, to: str = "web", **said: Any) -> Any:
        return mapping(name, "lan", to, AT, "https,quic", host=f"{name}.example", tls="one", **said)

    plan = build.plan(
        service("lan", "10.0.0.0/24"),
        service("web", "10.1.0.1", port=80),
        service("vault", "10.1.0.2", port=80, auth="token"),
        on("early", early_data=True),
        on("late", **fields),
        on("vault", "vault", early_data=True),
        on("shut", action="deny"),
    )
    return Visitor(Evaluator(plan), Client(ip_address("10.0.0.5"), 4711, ip_address("192.0.2.1"), 443))


def request(method: str = "GET", host: str = "early", *fields: tuple[str, str]) -> Request:
    name = f"{host}.example"
    return Request(method, name, name, "/", "/", fields, 0, "3")


@pytest.mark.parametrize(
    ("asked", "goes"),
    [
        (request(), True),
        (request("HEAD"), True),
        (request("OPTIONS"), True),
        (request("GET", "early", ("cookie", "a=b")), True),
        (request("GET", "early", ("authorization", "Bearer x")), False),
        (request("POST"), False),
        (request("PUT"), False),
        (request("TRACE"), False),
        (request("get"), False),
        (request("GET", "late"), False),
        (request("GET", "vault"), False),
        (request("GET", "shut"), False),
        (request("GET", "nowhere"), False),
    ],
)
def test_what_is_safe_and_wants_nothing_goes_on_where_a_mapping_says_so(asked: Request, goes: bool) -> None:
    assert may_hasten(visitor(), asked) is goes


def test_tickets_are_good_for_it_where_some_mapping_says_so() -> None:
    found = visitor()
    assert found.hastens
    assert not found.asks
    named = ("early.example", "late.example", "", "other.example")
    assert [found.hastens_at(name) for name in named] == [True, False, False, False]
    assert visitor(client_ca=ClientAuthority("ours").pem).asks


def test_it_says_so_once_whatever_its_client_says() -> None:
    asked = request("GET", "early", ("early-data", "0"), ("a", "b"), ("early-data", "1"))
    found = hastened(asked)
    assert found.fields == (("a", "b"), ("early-data", "1"))
    assert found.early
    assert not asked.early
