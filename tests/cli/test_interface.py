"""`marchproxy interface`, as an operator uses it."""

import pytest

from tests.cli.console import Console

ETH0 = {"name": "eth0", "role": "inside", "mode": "auto", "masquerade": False, "nat_addresses": []}


def test_interfaces_belong_to_the_appliance_and_no_cluster(site: Console) -> None:
    added = site.ok("interface", "add", "eth0", "--role", "inside", "--output", "json").json
    assert added == ETH0
    site.ok("interface", "add", "eth1", "--role", "outside", "--mode", "xdp-generic")
    assert site.ok("interface", "list", "--output", "json").json == [
        added,
        ETH0 | {"name": "eth1", "role": "outside", "mode": "xdp-generic"},
    ]
    assert site("interface", "list", "--cluster", "default").code == 2


def test_masquerade_with_and_without_addresses(site: Console) -> None:
    flags = ("--role", "outside", "--masquerade", "--nat-address", "192.0.2.9,192.0.2.1")
    added = site.ok("interface", "add", "eth0", *flags, "--nat-address", "2001:db8::1", "--output", "json")
    addresses = ["192.0.2.1", "192.0.2.9", "2001:db8::1"]
    assert added.json == ETH0 | {"role": "outside", "masquerade": True, "nat_addresses": addresses}
    result = site("interface", "set", "eth0", "--no-masquerade")
    assert result.code == 5
    assert "no source addresses without masquerade" in result.err
    site.ok("interface", "set", "eth0", "--no-masquerade", "--nat-address", "", "--role", "inside")
    assert site.ok("interface", "show", "eth0", "--output", "json").json == ETH0


@pytest.mark.parametrize("address", ["192.0.2.0/24", "gw.example", "224.0.0.1", "::", "127.0.0.1", "x"])
def test_what_cannot_be_a_source_address(site: Console, address: str) -> None:
    result = site("interface", "add", "eth0", "--role", "outside", "--masquerade", "--nat-address", address)
    assert result.code == 5
    assert "nat_addresses" in result.err


def test_remove_takes_it_out(site: Console) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    site.ok("interface", "remove", "eth0", "--yes")
    assert site.ok("interface", "list", "--output", "json").json == []
    assert site("interface", "remove", "eth0", "--yes").code == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["eth0"], 2),
        (["eth0", "--role", "sideways"], 5),
        (["eth0", "--role", "inside", "--mode", "fast"], 5),
        (["a-name-that-is-too-long", "--role", "inside"], 5),
        (["eth/0", "--role", "inside"], 5),
        (["..", "--role", "inside"], 5),
    ],
)
def test_what_cannot_be_meant_is_refused(site: Console, words: list[str], code: int) -> None:
    assert site("interface", "add", *words).code == code
    assert site.ok("interface", "list", "--output", "json").json == []


def test_the_same_device_twice_is_a_conflict(site: Console) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    assert site("interface", "add", "eth0", "--role", "outside").code == 4
