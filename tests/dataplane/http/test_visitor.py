"""What one plan says about one client."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.http.messages import Request
from marchproxy.dataplane.http.requests import read_request
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.model.documents import read_mapping
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.conditions import Plain
from marchproxy.policy.evaluate import Evaluator
from marchproxy.policy.plan import Plan
from tests.clientcerts import ClientAuthority
from tests.dataplane.admission.desk import blocking
from tests.policy import build
from tests.policy.build import mapping, service

LAN, WEB = service("lan", "10.0.0.0/24"), service("web", "10.1.0.1", port=80)
OURS = ClientAuthority("ours").pem
AT = "192.0.2.1:443"


def visitor(plan: Plan, source: str = "10.0.0.5") -> Visitor:
    who = Client(ip_address(source), 4711, ip_address("192.0.2.1"), 443)
    return Visitor(Evaluator(plan), who)


def made() -> Plan:
    return build.plan(
        LAN,
        WEB,
        mapping("a", "lan", "web", AT, "https", host="a.example", tls="one"),
        mapping("b", "lan", "web", AT, "https", host="b.example", tls="two"),
        mapping("c", "lan", "web", AT, "https", path_prefix="/c", tls="one"),
    )


def test_each_request_is_answered_by_its_route() -> None:
    found = visitor(made())
    assert found.listens
    assert found.expected
    assert found.answer("a.example", "/").mapping == "a"
    assert found.answer("x", "/c/d").mapping == "c"
    assert found.answer("x", "/").reason is Reason.NO_MAPPING
    assert found.answer("a.example", "/") is found.answer("a.example", "/")


def test_only_what_is_open_to_anyone_needs_no_second_look() -> None:
    plan = build.plan(
        LAN,
        WEB,
        service("vault", "10.1.0.2", port=80, auth="token"),
        mapping("open", "lan", "web", AT, "https", path_prefix="/open"),
        mapping("shut", "lan", "web", AT, "https", path_prefix="/shut", action="deny"),
        mapping("asks", "lan", "vault", AT, "https", path_prefix="/asks"),
        mapping("limited", "lan", "web", AT, "https", path_prefix="/limited", limit_requests="1/s"),
        mapping("proven", "lan", "web", AT, "https", path_prefix="/proven", tls="one", client_ca=OURS),
    )
    found = visitor(plan)
    asked = {
        path: found.lets_anyone(found.answer("x", path))
        for path in ("/open", "/shut", "/asks", "/none", "/limited", "/proven")
    }
    assert asked == {path: path == "/open" for path in asked}
    barred = visitor(blocking(plan, "10.0.0.5"))
    assert not barred.lets_anyone(barred.answer("x", "/open"))


def test_certificates_are_those_of_its_rules() -> None:
    assert set(visitor(made()).certificates) == {"one", "two"}
    assert visitor(made(), "10.9.9.9").certificates == ()
    assert not visitor(made(), "10.9.9.9").expected


def test_many_different_requests_are_not_all_remembered() -> None:
    found = visitor(made())
    for number in range(100):
        assert found.answer("a.example", f"/{number}").mapping == "a"
    assert len(found._asked) < 20


@pytest.mark.parametrize("entry", ["10.0.0.5", "192.0.2.1"])
def test_who_is_blocked_is_answered_at_once(entry: str) -> None:
    found = visitor(blocking(made(), entry))
    assert found.blocked is not None
    answer = found.answer("a.example", "/")
    assert (answer.verdict, answer.blocked_by) == (Verdict.DENY, f"block:{entry}")


def test_what_depends_on_more_is_decided_for_each_request_and_remembered_for_the_last() -> None:
    plan = build.plan(
        LAN,
        WEB,
        mapping("a", "lan", "web", AT, "https", host="a.example", tls="one"),
        mapping("posts", "lan", "web", AT, "https", host="a.example", methods=["POST"], tls="one"),
    )
    found = visitor(plan)
    get, post = Plain("GET", "/x"), Plain("POST", "/x")
    assert found.answer("a.example", "/x", get).mapping == "a"
    assert found.answer("a.example", "/x", post).mapping == "posts"
    assert found.answer("a.example", "/x", post) is found.answer("a.example", "/x", post)
    assert found.answer("a.example", "/x", get).mapping == "a"
    assert found.answer("a.example", "/y").mapping == "a"
    assert found.answer("b.example", "/x").reason is Reason.NO_MAPPING
    assert not found._asked.keys() - {("b.example", "/x")}


def test_a_redirect_has_its_certificate_too() -> None:
    document = {"name": "away", "sources": ["lan"], "protocols": ["https"], "listen": AT, "tls": "one"}
    assert visitor(build.plan(LAN, read_mapping(document | {"redirect": "/x"}))).certificates == ("one",)


def test_what_was_found_for_one_holds_for_the_next_of_its_address() -> None:
    first = visitor(made())
    known = first.answer("a.example", "/")
    other = first.again(Client(ip_address("10.0.0.5"), 4712, ip_address("192.0.2.1"), 443))
    assert (first.who.port, other.who.port) == (4711, 4712)
    for name in set(Visitor.__slots__) - {"who"}:
        assert getattr(other, name) is getattr(first, name)
    assert other.answer("a.example", "/") is known
    assert other.answer("b.example", "/") is first.answer("b.example", "/")


def test_long_paths_are_not_remembered_for_those_who_come_after() -> None:
    found = visitor(made())
    assert found.answer("a.example", f"/{'x' * 200}").mapping == "a"
    assert len(found._asked) == 1
    assert found.answer("a.example", f"/{'x' * 300}").mapping == "a"
    assert len(found._asked) == 1


def request(*lines: str, path: str = "/") -> Request:
    head = "\r\n".join([f"GET {path} HTTP/1.1", "Host: a.example", *lines, "", ""]).encode()
    found = read_request(head)
    found.head = head
    return found


def test_what_heads_say_is_known_to_all_connections_of_a_client() -> None:
    first = visitor(made())
    asked = request("User-Agent: probe", "Accept: */*")
    assert first.understood(asked.head) is None
    first.remember(asked)
    again = first.again(replace(first.who, port=4712))
    assert again.understood(asked.head) is asked
    assert visitor(made()).understood(asked.head) is None


@pytest.mark.parametrize(
    "secret",
    [
        request("Authorization: Bearer x"),
        request("Cookie: session=x"),
        request("X-Api-Key: x"),
        request(path="/?token=x"),
        request("User-Agent: " + "x" * 512),
    ],
)
def test_what_may_be_secret_or_is_large_does_not_outlive_its_connection(secret: Request) -> None:
    found = visitor(made())
    found.remember(secret)
    assert found.understood(secret.head) is None


def test_few_heads_are_remembered() -> None:
    found = visitor(made())
    asked = [request(path=f"/{number}") for number in range(50)]
    for each in asked:
        found.remember(each)
    assert found.understood(asked[-1].head) is asked[-1]
    assert sum(found.understood(each.head) is not None for each in asked) <= 4
