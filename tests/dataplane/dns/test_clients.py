"""How often one client may ask. The clock is a number."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.dns import clients
from marchproxy.dataplane.dns.clients import ClientRates

A, B = ip_address("10.1.0.2"), ip_address("10.1.0.3")


def admitted(rates: ClientRates, client: object, now: float, times: int) -> int:
    return sum(rates.admit(ip_address(str(client)), now) for _ in range(times))


def test_a_burst_and_then_the_rate() -> None:
    rates = ClientRates(per_second=10, burst=20)
    assert admitted(rates, A, 0, 50) == 20
    assert admitted(rates, A, 1, 50) == 10
    assert admitted(rates, A, 1.5, 50) == 5
    assert admitted(rates, A, 1000, 50) == 20


def test_clients_do_not_share() -> None:
    rates = ClientRates(per_second=1, burst=5)
    assert admitted(rates, A, 0, 10) == 5
    assert admitted(rates, B, 0, 10) == 5


def test_an_ipv6_subnet_is_one_client_and_never_an_ipv4_one() -> None:
    rates = ClientRates(per_second=1, burst=5)
    assert admitted(rates, "2001:db8::1", 0, 3) == 3
    assert admitted(rates, "2001:db8::2", 0, 3) == 2
    assert admitted(rates, "2001:db8:0:1::2", 0, 3) == 3
    assert admitted(rates, "::a01:2", 0, 5) == 5
    assert admitted(rates, A, 0, 5) == 5


def test_all_together_have_a_limit() -> None:
    rates = ClientRates(per_second=10, burst=20, in_all=100)
    assert sum(rates.admit(ip_address(number), 0) for number in range(1000)) == 200
    assert sum(rates.admit(ip_address(number), 1) for number in range(1000)) == 100


def test_a_million_strangers_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "REMEMBERED", 100)
    rates = ClientRates(in_all=1e6)
    for number in range(1000):
        assert rates.admit(ip_address(number), 0)
    assert len(rates) == 100
