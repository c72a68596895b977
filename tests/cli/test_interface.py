"""`marchproxy interface`, as an operator uses it."""

import pytest

from tests.cli.console import Console


def test_interfaces_belong_to_the_appliance_and_no_cluster(site: Console) -> None:
    added = site.ok("interface", "add", "eth0", "--role", "inside", "--output", "json").json
    assert added == {"name": "eth0", "role": "inside", "mode": "auto"}
    site.ok("interface", "add", "eth1", "--role", "outside", "--mode", "xdp-generic")
    assert site.ok("interface", "list", "--output", "json").json == [
        added,
        {"name": "eth1", "role": "outside", "mode": "xdp-generic"},
    ]
    assert site("interface", "list", "--cluster", "default").code == 2


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
