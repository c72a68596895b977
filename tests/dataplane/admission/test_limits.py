"""Room for strangers."""

from ipaddress import ip_address

from marchproxy.dataplane.admission.limits import AdmissionLimits, Gate, default_limits

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def test_one_source_leaves_room_for_others() -> None:
    gate = Gate(AdmissionLimits(connections=3, per_source=2))
    assert [gate.enter(ONE) for _ in range(3)] == [True, True, False]
    assert gate.room == 1
    assert gate.enter(OTHER)
    assert gate.room == 0
    assert not gate.enter(OTHER)
    gate.leave(ONE)
    assert gate.inside == 2
    assert gate.enter(ONE)


def test_a_subnet_of_ipv6_is_one_source() -> None:
    gate = Gate(AdmissionLimits(connections=9, per_source=1))
    assert gate.enter(ip_address("2001:db8::1"))
    assert not gate.enter(ip_address("2001:db8::ffff:2"))
    assert gate.enter(ip_address("2001:db8:0:1::1"))
    assert gate.enter(ip_address("::1"))


def test_descriptors_are_for_two_ends_of_each_tunnel() -> None:
    limits = default_limits(20_000)
    assert 2 * limits.connections < 20_000
    assert limits.connections > 9_000
    assert default_limits(20_000, shared=True).connections < limits.connections
    assert default_limits(64).connections > 0
