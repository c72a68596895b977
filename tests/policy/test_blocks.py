"""blocks: merged so that every address has one answer, by what it should be, for as long as it holds."""

import random
from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address, ip_address

import pytest

from marchproxy.model.appliance import Block
from marchproxy.model.blocklist import BlockContents
from marchproxy.model.reason import Reason, Verdict
from marchproxy.policy.blocks import MAX_RESOLVED, BlockMemo, compile_blocks, owner_name
from marchproxy.policy.compile import compile_plan
from marchproxy.policy.evaluate import Evaluator, evaluate
from marchproxy.policy.why import why
from tests.policy.blocking import NOW, Oracle, block_list, blocks, contents, near, random_prefixes
from tests.policy.build import compiled, mapping, query, service, snapshot

HOUR = timedelta(hours=1)


def compile_lists(
    *named: tuple[str, BlockContents], at: timedelta = timedelta(), before: BlockMemo | None = None
) -> BlockMemo:
    """Lists by name, at a moment."""
    items = [block_list(name, held) for name, held in named]
    by_hash = {item.sha256: held for item, (_, held) in zip(items, named, strict=True)}
    return compile_blocks((), items, by_hash, {}, NOW + at, before or BlockMemo())


@pytest.mark.parametrize("seed", range(4))
def test_lists_that_overlap_answer_as_all_their_prefixes_do(seed: int) -> None:
    chance = random.Random(seed)
    lists = {name: random_prefixes(chance, 200, 4) + random_prefixes(chance, 200, 6) for name in "abc"}
    every = [prefix for prefixes in lists.values() for prefix in prefixes]
    lines = {name: [str(prefix) for prefix in prefixes] for name, prefixes in lists.items()}
    held, oracle = blocks(*lines.pop("c"), **lines), Oracle(every)
    for _ in range(5000):
        address = near(chance, chance.choice(every))
        assert bool(held.find(address)) is oracle.blocks(address), address


def test_owner_is_the_single_block_then_the_wider_prefix_then_the_first_list() -> None:
    held = blocks("10.0.0.1", a=["10.0.0.0/24", "10.1.0.1"], b=["10.0.0.0/16", "10.1.0.1"])
    assert held.find(ip_address("10.0.0.1")) == "block:10.0.0.1"
    assert held.find(ip_address("10.0.0.2")) == "block-list:b"
    assert held.find(ip_address("10.1.0.1")) == "block-list:a"
    assert held.find(ip_address("10.2.0.1")) == ""


def test_names_and_what_is_below_wildcards() -> None:
    held = blocks("ads.example", "*.bad.example", list=["x.example", "*.ads.example"])
    assert held.find_name("ADS.example.") == "block:ads.example"
    assert held.find_name("a.b.bad.example") == "block:*.bad.example"
    assert held.find_name("y.ads.example") == "block-list:list"
    assert [held.find_name(name) for name in ("bad.example", "y.x.example", "example", "")] == [""] * 4


def test_everything_can_be_blocked() -> None:
    held = blocks("0.0.0.0/0", "::/0")
    assert held.find(IPv4Address(0xFFFFFFFF)) == "block:0.0.0.0/0"
    assert held.find(ip_address("::")) == "block:::/0"


def test_what_expires_is_gone_and_says_when() -> None:
    single = (Block("10.0.0.1", expires=NOW + HOUR), Block("10.0.0.2"))
    before = compile_blocks(single, (), {}, {}, NOW, BlockMemo())
    assert before.next_expiry == NOW + HOUR
    after = compile_blocks(single, (), {}, {}, NOW + HOUR, before)
    assert after.next_expiry is None
    assert [bool(memo.blocks.find(ip_address("10.0.0.1"))) for memo in (before, after)] == [True, False]
    assert after.blocks.find(ip_address("10.0.0.2"))


def test_entries_of_a_list_expire_by_themselves() -> None:
    held = contents("ip,reason,expires", "10.0.0.0/8,,2026-01-01T01:00:00Z", "10.0.0.1,stays,")
    first = compile_lists(("a", held))
    assert (first.next_expiry, len(first.blocks.lists)) == (NOW + HOUR, 1)
    second = compile_lists(("a", held), at=HOUR, before=first)
    assert [bool(second.blocks.find(ip_address(text))) for text in ("10.0.0.1", "10.0.0.2")] == [True, False]


def test_list_expires_as_a_whole() -> None:
    held = contents("10.0.0.1")
    item = block_list("a", held, expires=NOW + HOUR)
    before = compile_blocks((), (item,), {item.sha256: held}, {}, NOW, BlockMemo())
    assert before.blocks.find(ip_address("10.0.0.1"))
    assert not compile_blocks((), (item,), {item.sha256: held}, {}, NOW + HOUR, before).blocks


def test_what_did_not_change_is_the_same_object() -> None:
    held = contents("10.0.0.1", "ads.example")
    item = block_list("a", held)
    by_hash = {item.sha256: held}
    one = compile_blocks((), (item,), by_hash, {}, NOW, BlockMemo())
    two = compile_blocks((Block("10.0.0.9"),), (item,), by_hash, {}, NOW, one)
    assert two.blocks.lists is one.blocks.lists
    resolved = {"ads.example": [ip_address("192.0.2.1")]}
    three = compile_blocks((Block("10.0.0.9"),), (item,), by_hash, resolved, NOW, two)
    assert three.blocks.lists is one.blocks.lists
    assert three.blocks.find(ip_address("192.0.2.1")) == "block-list:a"
    assert compile_blocks((Block("10.0.0.9"),), (item,), by_hash, resolved, NOW, three).blocks is three.blocks


def test_no_more_names_are_resolved_than_a_resolver_can_stand() -> None:
    held = contents(*(f"host{number}.example" for number in range(MAX_RESOLVED + 10)))
    memo = compile_lists(("a", held))
    assert len(memo.resolving) == MAX_RESOLVED
    assert memo.blocks.find_name(f"host{MAX_RESOLVED + 9}.example")


def test_names_of_owners_fit_the_kernels_table() -> None:
    assert owner_name("block", "a" * 253) == "block:" + "a" * 118 + "..."
    assert len(owner_name("block", "a" * 253)) == 127


WEB = (
    service("office", "10.0.0.0/24"),
    service("web", "10.2.0.2"),
    mapping("web", "office", "web", "192.0.2.1:80"),
)


def test_blocks_come_before_mappings() -> None:
    plan = replace(compiled(*WEB).plan, blocks=blocks("10.0.0.1", list=["192.0.2.1"]))
    refused = evaluate(plan, query("10.0.0.1", "192.0.2.1"))
    assert (refused.verdict, refused.reason) == (Verdict.DENY, Reason.BLOCKED_SOURCE)
    assert refused.mapping == "block:10.0.0.1"
    asked = query("10.0.0.2", "192.0.2.1")
    assert evaluate(plan, asked).reason is Reason.BLOCKED_DESTINATION
    said = "destination 192.0.2.1 is blocked by block list list: no mapping is asked"
    assert why(Evaluator(plan), asked) == (said,)


def test_plan_has_the_blocks_of_the_snapshot_and_resolves_their_names() -> None:
    held = contents("10.0.0.0/8", "*.bad.example")
    item = block_list("a", held)
    wanted = replace(snapshot(*WEB), blocks=(Block("ads.example", expires=NOW + HOUR),), block_lists=(item,))
    first = compile_plan(wanted, now=NOW, contents={item.sha256: held})
    assert first.plan.names == {"ads.example"}
    assert first.next_expiry == NOW + HOUR
    names = {"ads.example": [ip_address("192.0.2.66")]}
    second = compile_plan(wanted, now=NOW, contents={item.sha256: held}, names=names, previous=first)
    assert second.plan.blocks.find(ip_address("192.0.2.66")) == "block:ads.example"
    assert second.plan == compile_plan(wanted, now=NOW, contents={item.sha256: held}, names=names).plan


def test_list_whose_contents_are_not_there_blocks_nothing() -> None:
    item = block_list("a", contents("10.0.0.1"))
    assert not compile_blocks((), (item,), {}, {}, NOW, BlockMemo()).blocks
