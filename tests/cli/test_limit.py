"""`marchproxy limit`, as an operator uses it."""

from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.cli.fields import amount
from tests.cli.console import STATUS, Answers, Console, Daemon

UNCOUNTED = dict.fromkeys(("passed_packets", "passed_bytes", "dropped_packets", "dropped_bytes"))
EVERYONE: dict[str, Any] = {
    "name": "source-packets",
    "per": "source",
    "services": [],
    "packets_per_second": 10_000,
    "bytes_per_second": None,
    "flows_per_second": None,
    "burst": None,
    "exempt": [],
}


def test_a_name_is_made_from_what_it_limits(site: Console) -> None:
    added = site.ok("limit", "add", "--per", "source", "--packets-per-second", "10k", "--output", "json")
    assert added.json == EVERYONE
    site.ok("limit", "add", "--per", "total", "--bytes-per-second", "1G", "--flows-per-second", "500")
    site.ok("limit", "add", "--per", "service", "--service", "web,clients", "--bytes-per-second", "10M")
    site.ok("limit", "add", "--name", "mine", "--per", "source", "--flows-per-second", "5")
    rows = site.ok("limit", "list", "--output", "json").json
    assert [row["name"] for row in rows] == [
        "mine",
        "service-web-clients-bytes",
        "source-packets",
        "total-bytes-flows",
    ]
    assert rows[2] == EVERYONE | UNCOUNTED
    assert site("limit", "add", "--per", "source", "--packets-per-second", "5").code == 4


def test_a_made_name_is_one_that_is_allowed(site: Console) -> None:
    names = [f"a-service-with-a-rather-long-name-{number}" for number in range(3)]
    for name in names:
        site.ok("service", "add", name, "--address", "10.1.0.1")
    flags = [word for name in names for word in ("--service", name)]
    site.ok("limit", "add", "--per", "service", *flags, "--packets-per-second", "5")
    (row,) = site.ok("limit", "list", "--output", "json").json
    assert row["name"].startswith("service-a-service-with")
    assert row["services"] == names


def test_set_changes_what_is_given_and_keeps_the_rest(site: Console) -> None:
    flags = ("--packets-per-second", "10k", "--exempt", "10.1.0.5/32,fd00::/8", "--burst", "2k")
    site.ok("limit", "add", "--per", "source", *flags)
    site.ok("limit", "set", "source-packets", "--bytes-per-second", "1.5M", "--burst", "", "--exempt", "")
    shown = site.ok("limit", "show", "source-packets", "--output", "json").json
    assert shown == EVERYONE | {"bytes_per_second": 1_500_000} | UNCOUNTED
    assert site("limit", "set", "source-packets").code == 2
    site.ok("limit", "remove", "source-packets", "--yes")
    assert site("limit", "show", "source-packets").code == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--packets-per-second", "5"], 2),
        (["--per", "source"], 5),
        (["--per", "packet", "--packets-per-second", "5"], 5),
        (["--per", "service", "--packets-per-second", "5"], 5),
        (["--per", "source", "--packets-per-second", "0"], 5),
        (["--per", "source", "--packets-per-second", "-5"], 5),
        (["--per", "source", "--packets-per-second", "5x"], 5),
        (["--per", "source", "--packets-per-second", "101G"], 5),
        (["--per", "source", "--packets-per-second", "5", "--burst", "0"], 5),
        (["--per", "source", "--packets-per-second", "5", "--burst", "18001"], 5),
        (["--per", "source", "--packets-per-second", "5", "--exempt", "10.0.0.1/8"], 5),
        (["--per", "source", "--packets-per-second", "5", "--exempt", "a.example"], 5),
        (["--per", "source", "--packets-per-second", "5", "--service", "nobody"], 3),
        (["--per", "source", "--packets-per-second", "5", "--name", "a b"], 5),
    ],
)
def test_what_cannot_be_meant_is_refused(site: Console, words: list[str], code: int) -> None:
    result = site("limit", "add", *words)
    assert result.code == code, result
    assert site.ok("limit", "list", "--output", "json").json == []


def test_a_service_with_a_limit_cannot_be_removed(site: Console) -> None:
    site.ok("service", "add", "iot", "--address", "10.9.0.0/16")
    site.ok("limit", "add", "--per", "service", "--service", "iot", "--packets-per-second", "5")
    assert site("service", "remove", "iot", "--yes").code != 0
    warned = site.ok("limit", "set", "service-iot-packets", "--burst", "9")
    assert "iot, which no mapping names as a source" in site.ok("check", "--output", "json").out
    assert "revision" in warned.err


def test_list_shows_what_the_daemon_counted(site: Console, daemon: Callable[[Answers], Daemon]) -> None:
    site.ok("limit", "add", "--per", "source", "--packets-per-second", "10k")
    site.ok("limit", "add", "--per", "total", "--packets-per-second", "1M")
    daemon({"GET /v1/status": (200, STATUS)})
    source, total = site.ok("limit", "list", "--output", "json").json
    assert (source["passed_packets"], source["dropped_bytes"]) == (5, 7000)
    assert total["passed_packets"] is None, "a daemon that has not taken it over yet"
    table = site.ok("limit", "list").out.splitlines()
    assert table[1].split() == ["source-packets", "source", *["-", "10000", "-", "-", "-", "-", "5", "7"]]
    assert site.ok("limit", "show", "source-packets", "--output", "json").json["dropped_packets"] == 7


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", 0),
        ("10", 10),
        ("10k", 10_000),
        ("1.5M", 1_500_000),
        ("2g", 2 * 10**9),
        ("0.001k", 1),
        ("0.0001k", "0.0001k"),
        ("", ""),
        ("k", "k"),
        ("1.", "1."),
        (".5k", ".5k"),
        ("1e3", "1e3"),
        ("-1", "-1"),
        ("١٢", "١٢"),
        ("9" * 30, "9" * 30),
        ("1 000", "1 000"),
    ],
)
def test_amounts(text: str, wanted: object) -> None:
    assert amount(text) == wanted
