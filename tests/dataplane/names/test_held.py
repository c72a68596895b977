"""One name's addresses over time: current, lingering, gone. The clock is a number."""

from collections.abc import Sequence
from ipaddress import ip_address
from math import inf

from marchproxy.dataplane.names.held import LINGER, LONGEST, MOST, HeldAddresses
from marchproxy.model.address import IPAddress

BOTH: frozenset[int] = frozenset()


def a(*numbers: int) -> list[IPAddress]:
    return [ip_address(f"192.0.2.{number}") for number in numbers]


def shown(addresses: Sequence[IPAddress]) -> list[int]:
    return [int(address) & 0xFF for address in addresses]


def test_what_leaves_the_answer_lingers_and_then_goes() -> None:
    held = HeldAddresses()
    assert held.answer(a(1, 2), BOTH, now=0, version=1)
    assert held.next_at == inf
    assert not held.answer(a(2, 1), BOTH, now=50, version=2)
    assert held.answer(a(2, 3), BOTH, now=100, version=2)
    assert (shown(held.current), shown(held.lingering)) == ([2, 3], [1])
    assert held.next_at == 100 + LINGER
    assert not held.drop(100 + LINGER - 1)
    assert held.ending(100 + LINGER) == a(1)
    assert not held.settle(100 + LINGER)
    assert held.next_at == 100 + LINGER
    assert held.drop(100 + LINGER)
    assert (shown(held.current), shown(held.lingering)) == ([2, 3], [])
    assert held.next_at == inf


def test_what_comes_back_is_current_again() -> None:
    held = HeldAddresses()
    held.answer(a(1, 2), BOTH, now=0, version=1)
    held.answer(a(2), BOTH, now=10, version=2)
    assert held.answer(a(1, 2), BOTH, now=20, version=3)
    assert (shown(held.current), held.lingering) == ([1, 2], ())
    assert held.since(a(1)) == 1


def test_a_family_that_is_unknown_stays() -> None:
    held = HeldAddresses()
    held.answer([*a(1), ip_address("2001:db8::1")], BOTH, now=0, version=1)
    held.answer(a(2), frozenset({6}), now=10, version=2)
    assert [str(address) for address in held.current] == ["192.0.2.2", "2001:db8::1"]


def test_what_a_client_was_told_is_current_for_its_ttl() -> None:
    held = HeldAddresses()
    assert held.learn(a(1), 60, now=0, version=4)
    assert held.since(a(1, 9)) == 4
    assert not held.learn(a(1), 30, now=10, version=5)
    assert held.next_at == 60
    assert held.settle(60)
    assert (held.current, shown(held.lingering)) == ((), [1])
    assert held.learn(a(1), 30, now=70, version=6)
    assert shown(held.current) == [1]
    assert held.since(a(1)) == 4
    assert held.settle(100)
    assert held.drop(100 + LINGER)
    assert len(held) == 0


def test_what_a_client_was_told_outlives_the_answer_that_no_longer_has_it() -> None:
    held = HeldAddresses()
    held.learn(a(1), 600, now=0, version=1)
    assert not held.answer(a(1), BOTH, now=1, version=2)
    held.answer(a(2), BOTH, now=2, version=3)
    assert (shown(held.current), shown(held.lingering)) == ([2], [1])
    assert held.next_at >= 2 + LINGER


def test_lingering_can_be_drawn_out_but_not_for_ever() -> None:
    held = HeldAddresses()
    held.answer(a(1, 2), BOTH, now=0, version=1)
    held.answer(a(2), BOTH, now=0, version=2)
    now = LINGER
    rounds = 0
    while held.ending(now):
        held.postpone(held.ending(now), now, 3600)
        if held.ending(now):
            break
        assert not held.drop(now)
        now = held.next_at
        rounds += 1
    assert now == LONGEST
    assert rounds > 20
    assert held.drop(now)
    assert (shown(held.current), held.lingering) == ([2], ())


def test_there_is_room_for_so_many_and_the_lingering_go_first() -> None:
    held = HeldAddresses()
    many = [ip_address(0x0B000000 + number) for number in range(MOST)]
    held.learn(many[:10], 10, now=0, version=1)
    held.learn(many[10:], 1000, now=0, version=1)
    assert held.learn(a(1), 1000, now=5, version=2) is False
    assert (len(held), held.unlearned, held.since(a(1))) == (MOST, 1, 0)
    assert held.learn(a(1), 1000, now=20, version=3)
    assert (len(held), held.unlearned, held.since(a(1))) == (MOST, 0, 3)
    assert ip_address("192.0.2.1") in held.current


def test_what_an_earlier_daemon_held_is_taken_over() -> None:
    held = HeldAddresses()
    held.restore(a(1)[0], inf, inf, 1)
    held.restore(a(2)[0], -5, 30, 1)
    assert held.settle(0)
    assert (shown(held.current), shown(held.lingering)) == ([1], [2])
    assert held.answer(a(3), BOTH, now=0, version=2)
    assert (shown(held.current), shown(held.lingering)) == ([3], [1, 2])
