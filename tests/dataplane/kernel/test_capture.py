"""capture: which bits a prefix has. What the programs take is in tests/bpf/test_captures.py."""

from ipaddress import ip_network

from marchproxy.dataplane.kernel.capture import merged

WIDE, NARROW, OTHER = ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("fd00::/8")


def test_prefix_has_the_bits_of_all_that_contain_it() -> None:
    assert merged([(WIDE, 1), (NARROW, 2), (OTHER, 4)]) == {WIDE: 1, NARROW: 3, OTHER: 4}


def test_order_and_repetition_change_nothing() -> None:
    single = ip_network("10.1.2.3")
    wanted = [(single, 4), (NARROW, 2), (WIDE, 1), (NARROW, 4)]
    assert merged(wanted) == {single: 7, NARROW: 7, WIDE: 1}
    assert merged(wanted[::-1]) == merged(wanted)


def test_nothing_contains_what_stands_beside_it() -> None:
    beside = ip_network("11.0.0.0/16")
    assert merged([(WIDE, 1), (beside, 2)]) == {WIDE: 1, beside: 2}
