"""`marchproxy listener`, as an operator uses it."""

from typing import Any

import pytest

from tests.cli.console import Console

DNS: dict[str, Any] = {
    "name": "dns@10.1.0.1:53",
    "kind": "dns",
    "bind": "10.1.0.1:53",
    "tls": None,
    "proxy_from": [],
}


def test_a_listener_is_named_by_what_it_is(site: Console) -> None:
    before = site.ok("export").out
    assert site.ok("listener", "add", "dns", "--bind", "10.1.0.1:53", "--output", "json").json == DNS
    site.ok("listener", "add", "dns", "--bind", "[fd00::1]:53")
    assert [row["name"] for row in site.ok("listener", "list", "--output", "json").json] == [
        "dns@10.1.0.1:53",
        "dns@[fd00::1]:53",
    ]
    assert "dns@10.1.0.1:53   dns   10.1.0.1:53   -    -\n" in site.ok("listener", "list").out
    site.ok("listener", "remove", "dns@[fd00::1]:53", "--yes")
    site.ok("listener", "remove", "dns@10.1.0.1:53", "--yes")
    assert site.ok("export").out == before


def test_removing_needs_a_yes(site: Console) -> None:
    site.ok("listener", "add", "dns", "--bind", "10.1.0.1:53")
    assert site("listener", "remove", DNS["name"]).code == 2
    assert site("listener", "remove", DNS["name"], stdin="n\n", tty=True).code == 1
    assert site("listener", "remove", DNS["name"], stdin="y\n", tty=True).code == 0
    assert site("listener", "remove", DNS["name"], "--yes").code == 3


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["dns"], 2, "--bind"),
        (["smtp", "--bind", "10.1.0.1:53"], 5, "kind: 'smtp'"),
        (["dns", "--bind", "10.1.0.1"], 5, "ADDR:PORT"),
        (["dns", "--bind", "10.1.0.1:0"], 5, "bind: '10.1.0.1:0'"),
        (["dns", "--bind", ""], 5, "bind has no value"),
        (["dns", "--bind", "10.1.0.1:53", "--proxy-from", "10.1.0.5"], 5, "explicit takes it"),
        (["explicit", "--bind", "10.1.0.1:53", "--proxy-from", "balancer"], 5, "proxy_from"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(site: Console, words: list[str], code: int, says: str) -> None:
    result = site("listener", "add", *words)
    assert result.code == code
    assert says in result.err
    assert site.ok("listener", "list", "--output", "json").json == []


def test_balancers_that_speak_for_clients_are_named(site: Console) -> None:
    words = ("--bind", "10.1.0.1:3128", "--proxy-from", "10.1.0.5", "--proxy-from", "fd01::/64")
    added = site.ok("listener", "add", "explicit", *words, "--output", "json").json
    assert added["proxy_from"] == ["10.1.0.5", "fd01::/64"]
    name = "explicit@10.1.0.1:3128"
    changed = site.ok("listener", "set", name, "--proxy-from", "10.1.0.6", "--output", "json").json
    assert changed["proxy_from"] == ["10.1.0.6"]
    assert "proxy_from" not in site.ok("listener", "set", name, "--proxy-from", "").err
    assert site.ok("listener", "list", "--output", "json").json[0]["proxy_from"] == []


def test_twice_is_a_conflict(site: Console) -> None:
    site.ok("listener", "add", "dns", "--bind", "10.1.0.1:53")
    assert site("listener", "add", "dns", "--bind", "10.1.0.1:53").code == 4


def test_a_file_need_not_repeat_the_name(site: Console) -> None:
    file = site.write("own.yaml", "listeners: [{kind: dns, bind: '10.1.0.1:53'}]\n")
    site.ok("apply", "-f", file, "--yes")
    assert site.ok("listener", "list", "--output", "json").json == [DNS]
    assert len(site.ok("service", "list", "--output", "json").json) == 2


def test_which_certificate_it_speaks_tls_with_can_be_changed(site: Console) -> None:
    site.ok("cert", "generate", "proxy", "--host", "p.example")
    site.ok("listener", "add", "explicit", "--bind", "10.1.0.1:3128")
    name = "explicit@10.1.0.1:3128"
    assert site.ok("listener", "set", name, "--tls", "proxy", "--output", "json").json["tls"] == "proxy"
    assert site.ok("listener", "set", name, "--tls", "", "--output", "json").json["tls"] is None
    assert site("listener", "set", name, "--tls", "none").code == 3
    assert site("listener", "set", name).code == 2
    site.ok("listener", "add", "dns", "--bind", "10.1.0.1:53")
    assert site("listener", "set", DNS["name"], "--tls", "proxy").code == 5
