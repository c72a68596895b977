"""preview: flows that a plan would no longer allow, and no others."""

from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.dataplane import preview as module
from marchproxy.dataplane.preview import preview
from marchproxy.dataplane.records import Flow
from marchproxy.model.reason import Reason
from tests.dataplane.facts import decision, flow
from tests.dataplane.plans import backend, listener, plan, rule

OPEN = listener(443, rule(backend(8443), sources=("net",)), address="10.0.0.9")
SHUT = listener(80, rule(reason=Reason.DENY_MAPPING, mapping="no"), address="10.0.0.9")
PLAN = plan(OPEN, SHUT, sources={"net": "10.0.0.0/24"})


def to(port: int, source: str = "10.0.0.1", **fields: Any) -> Flow:
    return flow(decision(source, destination=ip_address("10.0.0.9"), destination_port=port, **fields))


def test_what_stays_and_what_goes() -> None:
    stays, stranger, refused = to(443), to(443, "192.0.2.1"), to(80)
    found = preview(PLAN, [stays, stranger, refused], complete=True)
    assert (found.looked_at, found.count, found.complete) == (3, 2, True)
    assert [(cut.flow, cut.reason, cut.mapping) for cut in found.cuts] == [
        (stranger, Reason.NO_MAPPING, ""),
        (refused, Reason.DENY_MAPPING, "no"),
    ]


def test_a_flow_whose_backends_are_all_gone_stays() -> None:
    drained = plan(listener(443, rule(reason=Reason.NO_BACKEND), address="10.0.0.9"))
    assert preview(drained, [to(443)], complete=True).count == 0


def test_the_list_is_bounded_and_the_count_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTED", 2)
    found = preview(PLAN, [to(80)] * 5, complete=False, unresolved={"b", "a"})
    assert (found.count, len(found.cuts), found.complete) == (5, 2, False)
    assert found.unresolved == ("a", "b")


def test_protocols_without_a_word_are_left_alone() -> None:
    assert preview(PLAN, [to(80, protocol="47")], complete=True).count == 0


def test_echo_is_asked_without_a_port() -> None:
    found = preview(PLAN, [to(1234, protocol="icmp")], complete=True)
    assert [cut.reason for cut in found.cuts] == [Reason.NO_MAPPING]
