"""Which flows are meant, in which order, and how the parts of an answer become one."""

import random
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from marchproxy.dataplane.flowquery import (
    FlowFilter,
    FlowOrder,
    FlowQuestion,
    SortKey,
    before,
    join,
    page_of,
)
from marchproxy.dataplane.records import Flow, Traffic
from marchproxy.model.reason import Reason
from tests.dataplane import facts

RECORD = facts.decision("10.1.2.3", source_service="shop/clients", name="www.example.com", mapping="shop/web")


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (FlowFilter(), True),
        (FlowFilter(source=ip_network("10.1.0.0/16"), port=443), True),
        (FlowFilter(source=ip_network("10.1.0.0/16"), port=80), False),
        (FlowFilter(service="clients"), True),
        (FlowFilter(service="web"), False),
        (FlowFilter(reason=Reason.FORWARDED), True),
        (FlowFilter(reason=Reason.HANDED_OFF), False),
        (FlowFilter(text="1.2.3"), True),
        (FlowFilter(text="example.com"), True),
        (FlowFilter(text="shop/w"), True),
        (FlowFilter(text="10.9.0.1"), True),
        (FlowFilter(text="443"), False),
    ],
)
def test_all_that_is_set_must_hold(wanted: FlowFilter, meant: bool) -> None:
    assert wanted.matches(RECORD, ip_address("10.9.0.1")) is meant


def test_a_filter_that_says_nothing_is_false() -> None:
    assert not FlowFilter()
    assert FlowFilter(port=1)


def _flows(chance: random.Random, count: int) -> list[Flow]:
    made = facts.flow()
    return [
        replace(
            made,
            decision=replace(made.decision, id=number, source=ip_address(chance.randrange(1 << 32))),
            started=chance.random(),
            sent=Traffic(chance.randrange(1 << 20), chance.randrange(1 << 40)),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("key", [SortKey.STARTED, SortKey.BYTES, SortKey.PACKETS, SortKey.SOURCE, None])
def test_parts_of_an_answer_are_joined_as_if_there_were_one(key: SortKey | None) -> None:
    chance = random.Random(3)
    for _ in range(300):
        part, others = _flows(chance, chance.randrange(30)), _flows(chance, chance.randrange(8))
        order = FlowOrder(key, descending=chance.random() < 0.5) if key else None
        question = FlowQuestion(FlowFilter(), order, chance.randrange(40), chance.randrange(1, 20))
        asked = page_of(part, before(question, len(others)))
        assert join(question, asked, others) == page_of([*part, *others], question)


def test_addresses_are_sorted_as_numbers() -> None:
    flows = [facts.flow(facts.decision(source)) for source in ("2001:db8::1", "10.0.0.10", "10.0.0.9")]
    page = page_of(flows, FlowQuestion(order=FlowOrder(SortKey.SOURCE)))
    assert [str(flow.decision.source) for flow in page.flows] == ["10.0.0.9", "10.0.0.10", "2001:db8::1"]
