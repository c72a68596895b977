"""What the requests of a connection count for, where many are under way."""

from dataclasses import fields
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.http.conversations import Conversations
from marchproxy.dataplane.http.pseudofields import read_request
from marchproxy.dataplane.http.site import Site
from marchproxy.dataplane.http.visitor import Visitor
from marchproxy.dataplane.proxy.ledger import Ledger
from marchproxy.dataplane.records import Event, EventKind
from marchproxy.model.reason import Reason
from tests.policy.build import mapping, plan, service

HEAD = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"h.example"), (b":path", b"/")]


def set_up() -> tuple[Conversations, Visitor, list[Event], Any]:
    told: list[Event] = []
    ledger = Ledger()
    ledger.sink = told.append
    made = plan(
        service("web", "10.1.0.1", port=80), mapping("www", "all", "web", "*:80", "http", path_prefix="/")
    )
    ledger.adopt(made, 1)
    others: dict[str, Any] = {each.name: None for each in fields(Site) if each.init and each.name != "judge"}
    site = Site(judge=cast(Any, SimpleNamespace(ledger=ledger)), **others)
    who = Client(ip_address("10.0.0.1"), 1000, ip_address("192.0.2.1"), 80)
    return Conversations(site), Visitor(ledger.evaluator, who), told, site


def take(made: Conversations, visitor: Visitor, site: Any, host: bytes = b"h.example") -> Any:
    request = read_request([*HEAD[:2], (b":authority", host), HEAD[3]], "3", ends=True)
    answer = visitor.answer(request.host, request.path)
    found = made.take(visitor, answer, request)
    assert answer.pool is not None
    site.open(found, answer.pool.backends[0])
    return found


def ended(told: list[Event]) -> list[Reason]:
    return [each.decision.reason for each in told if each.kind is EventKind.FLOW_END]


def test_requests_of_one_mapping_share_one() -> None:
    made, visitor, told, site = set_up()
    first, second = take(made, visitor, site), take(made, visitor, site)
    assert first is second
    made.release(first)
    made.release(first)
    assert made.every == (first,)
    assert not ended(told)


def test_another_host_is_another_one_and_the_first_waits_for_its_requests() -> None:
    made, visitor, told, site = set_up()
    first = take(made, visitor, site)
    second = take(made, visitor, site, b"other.example")
    assert set(made.every) == {first, second}
    made.release(first)
    assert made.every == (second,)
    assert ended(told) == [Reason.CLOSED]


def test_what_is_interrupted_ends_so() -> None:
    made, visitor, told, site = set_up()
    take(made, visitor, site)
    made.interrupt()
    made.close()
    assert ended(told) == [Reason.RESET]
    assert made.every == ()
