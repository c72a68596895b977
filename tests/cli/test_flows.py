"""`marchproxy flows`."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from marchproxy.cli.flows import Sort
from marchproxy.client.words import endpoint
from marchproxy.dataplane.flowquery import SortKey
from tests.cli.console import Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

STARTED = datetime.now(UTC) - timedelta(days=3, hours=2, minutes=30)
DECISION: dict[str, Any] = {
    "time": "2030-01-01T07:08:09.123Z",
    "id": 5,
    "source": "10.1.0.5",
    "source_port": 40000,
    "destination": "10.1.0.1",
    "destination_port": 80,
    "protocol": "tcp",
    "tier": "tc",
    "verdict": "allow",
    "reason": "FORWARDED",
    "mapping": "cw",
    "revision": 7,
    "source_service": "clients",
    "destination_service": "web",
    "name": "",
    "interface": "in0",
    "count": 1,
}
FLOW: dict[str, Any] = DECISION | {
    "backend": "fd00::10",
    "backend_port": 8080,
    "state": "established",
    "started": STARTED.isoformat(timespec="milliseconds"),
    "last_seen": "2030-01-01T07:08:10.000Z",
    "packets_sent": 10,
    "bytes_sent": 1000,
    "packets_received": 20,
    "bytes_received": 3_000_000,
}
REFUSED: dict[str, Any] = DECISION | {"verdict": "deny", "reason": "NO_MAPPING", "mapping": "", "id": 0}


def test_rows_are_the_daemons(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/flows": (200, [FLOW])})
    assert console.ok("flows", "--output", "json").json == [FLOW]


def test_table_of_what_is_carried(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/flows": (200, [FLOW])})
    title, row = console.ok("flows").out.splitlines()
    assert title.split() == (
        [
            "SOURCE",
            "DESTINATION",
            "PROTOCOL",
            "BACKEND",
            "STATE",
            "TIER",
            "SENT",
            "RECEIVED",
            "AGE",
            "MAPPING",
        ]
    )
    assert row.split() == [
        *("10.1.0.5:40000", "10.1.0.1:80", "tcp", "[fd00::10]:8080", "established", "tc"),
        *("1.0", "kB", "3.0", "MB", "3d", "2h", "cw"),
    ]


def test_table_of_what_was_refused(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/flows": (200, [REFUSED])})
    title, row = console.ok("flows", "--denied").out.splitlines()
    assert "REASON" in title
    assert row.split()[:6] == [
        "2030-01-01T07:08:09.123Z",
        "deny",
        "10.1.0.5:40000",
        "10.1.0.1:80",
        "tcp",
        "NO_MAPPING",
    ]
    assert server.asked[0][0] == "GET /v1/flows?denied=1&limit=1000"


def test_filters_are_the_daemons_to_apply(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/flows": (200, [])})
    console.ok(
        *("flows", "--source", "10.1.0.0/16", "--destination", "::1", "--port", "80", "--protocol", "udp"),
        *("--mapping", "cw", "--service", "web", "--reason", "IDLE", "--limit", "5"),
    )
    assert server.asked[0][0] == (
        "GET /v1/flows?limit=5&source=10.1.0.0%2F16&destination=%3A%3A1&port=80"
        "&protocol=udp&mapping=cw&service=web&reason=IDLE"
    )


def test_what_is_cut_off_is_said(console: Console, daemon: Start) -> None:
    body = json.dumps([FLOW, FLOW]).encode()
    head = f"HTTP/1.1 200 OK\r\nX-MarchProxy-Total: 71\r\nContent-Length: {len(body)}\r\n\r\n"
    daemon({"GET /v1/flows": head.encode() + body})
    assert "these are 2 of 71" in console.ok("flows", "--limit", "2").err
    assert console.ok("flows", "--limit", "2", "--output", "json").err == ""


def test_a_daemon_of_before_does_not_say_how_many_there_are(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/flows": (200, [FLOW, FLOW])})
    assert console.ok("flows", "--limit", "2").err == ""


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (["--sort", "bytes"], "-bytes"),
        (["--sort", "bytes", "--reverse"], "bytes"),
        (["--sort", "mapping"], "mapping"),
        (["--sort", "last_seen"], "-last_seen"),
        (["--sort", "source", "--reverse"], "-source"),
    ],
)
def test_the_order_is_the_daemons_to_make(
    console: Console, daemon: Start, words: list[str], order: str
) -> None:
    server = daemon({"GET /v1/flows": (200, [])})
    console.ok("flows", *words, "--text", "web")
    assert server.asked[0][0] == f"GET /v1/flows?limit=1000&text=web&sort={order}"


def test_the_daemon_knows_every_order() -> None:
    assert list(map(str, Sort)) == list(map(str, SortKey))


def test_there_is_nothing_to_turn_round_without_an_order(console: Console) -> None:
    assert console("flows", "--reverse").code == 2


@pytest.mark.parametrize("flag", ["--follow", "--denied"])
def test_an_order_is_for_what_is_carried(console: Console, flag: str) -> None:
    assert console("flows", "--sort", "bytes", flag).code == 2


def test_a_filter_that_the_daemon_cannot_mean_is_5(console: Console, daemon: Start) -> None:
    error = {"name": "InvalidValue", "message": "source: 'x' is not valid", "hint": "expected an address"}
    daemon({"GET /v1/flows": (400, {"error": error})})
    result = console("flows", "--source", "x")
    assert (result.code, result.err) == (
        5,
        "error: source: 'x' is not valid\nhint: expected an address\n",
    )


@pytest.mark.parametrize(
    ("words", "code"), [([], 6), (["--follow"], 6), (["--limit", "0"], 2), (["--limit", "many"], 2)]
)
def test_codes(console: Console, words: list[str], code: int) -> None:
    assert console("flows", *words).code == code


@pytest.mark.parametrize(
    ("address", "port", "text"),
    [("10.0.0.1", 80, "10.0.0.1:80"), ("fd00::1", 80, "[fd00::1]:80"), ("10.0.0.1", 0, "10.0.0.1")],
)
def test_endpoint(address: str, port: int, text: str) -> None:
    assert endpoint({"source": address, "source_port": port}, "source") == text


def test_flows_are_cut_by_their_ids(console: Console, daemon: Start) -> None:
    running = daemon({"POST /v1/flows/cut": (200, {"cut": 2, "unknown": []})})
    result = console.ok("flows", "cut", "5", "6", "5")
    assert "cut 2 of 2 flows" in result.err
    assert running.asked == [("POST /v1/flows/cut", {"ids": [5, 6, 5]})]


def test_a_flow_that_is_gone_is_not_found(console: Console, daemon: Start) -> None:
    daemon({"POST /v1/flows/cut": (200, {"cut": 0, "unknown": [5]})})
    result = console("flows", "cut", "5")
    assert result.code == 3
    assert "flow '5' does not exist" in result.err


@pytest.mark.parametrize(
    ("words", "code"),
    [(("cut",), 2), (("stop", "5"), 2), (("cut", "x"), 5), (("cut", "0"), 5), (("cut", "²"), 5)],
)
def test_what_is_no_id_cuts_nothing(console: Console, words: tuple[str, ...], code: int) -> None:
    assert console("flows", *words).code == code
