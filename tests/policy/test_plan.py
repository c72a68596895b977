"""The plan's own values."""

import itertools
from ipaddress import ip_address

import pytest

from marchproxy.model.protocol import Transport
from marchproxy.policy.plan import Listener, Plan, listener_key


@pytest.mark.parametrize(
    ("address", "text"), [("192.0.2.1", "192.0.2.1:443/udp"), ("2001:db8::1", "[2001:db8::1]:443/udp")]
)
def test_a_listener_is_written_as_operators_write_it(address: str, text: str) -> None:
    assert str(Listener(ip_address(address), 443, Transport.UDP, ())) == text


def test_keys_tell_every_listener_apart_and_order_them() -> None:
    """An IPv6 address of the same number as an IPv4 address is another address."""
    addresses = [ip_address(text) for text in ("0.0.0.0", "0.0.0.9", "0.0.0.10", "::", "::9", "::10")]
    listeners = [
        Listener(address, port, transport, ())
        for transport, address, port in itertools.product(Transport, addresses, (9, 80))
    ]
    keys = [listener.key for listener in listeners]
    assert keys == sorted(set(keys))
    assert keys[0] == listener_key(Transport.TCP, addresses[0], 9)


def test_the_empty_plan_allows_nothing_and_needs_nothing() -> None:
    empty = Plan()
    assert (empty.listeners, dict(empty.sources), empty.names, empty.findings) == ((), {}, frozenset(), ())
