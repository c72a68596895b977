"""How many may begin."""

from ipaddress import ip_address

from marchproxy.dataplane.quic.handshakes import EASY, EASY_PER_SOURCE, MOST, Handshakes


def test_one_source_has_to_show_itself_before_others() -> None:
    made = Handshakes()
    one, other = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    for _ in range(EASY_PER_SOURCE):
        assert not made.crowded(one)
        made.enter(one)
    assert made.crowded(one)
    assert not made.crowded(other)
    made.leave(one)
    assert not made.crowded(one)


def test_many_make_all_show_themselves() -> None:
    made = Handshakes()
    for index in range(EASY):
        made.enter(ip_address(0x0A000000 + index))
    assert made.crowded(ip_address("192.0.2.1"))
    assert not made.full(ip_address("192.0.2.1"))


def test_there_is_an_end_to_it() -> None:
    made = Handshakes()
    for index in range(MOST):
        made.enter(ip_address(0x0A000000 + index))
    assert made.full(ip_address("192.0.2.1"))


def test_an_ipv6_subnet_is_one_source() -> None:
    made = Handshakes()
    for index in range(EASY_PER_SOURCE):
        made.enter(ip_address(f"2001:db8::{index + 1:x}"))
    assert made.crowded(ip_address("2001:db8::ffff"))
    assert not made.crowded(ip_address("2001:db8:0:1::1"))
