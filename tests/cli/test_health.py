"""What `service show` and `status` say about backends."""

from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.cli.health import condition, place, sentence
from tests.cli.console import STATUS, Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]


def backend(address: str = "10.2.0.10", **fields: Any) -> dict[str, Any]:
    """One as the daemon tells it."""
    return {
        "service": "web",
        "address": address,
        "port": 8080,
        "check": "tcp",
        "state": "up",
        "checked": True,
        "drained": False,
        "since": "2030-01-01T00:00:01.000Z",
        "why": "",
        **fields,
    }


DOWN = backend("10.2.0.11", state="down", why="refused")
DRAINED = backend("10.2.0.12", drained=True, check="none", state="unchecked", checked=False, since="")
OTHER = backend("10.9.0.1", service="lab/web")


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (backend(), "10.2.0.10:8080 up since 2030-01-01T00:00:01.000Z"),
        (DOWN, "10.2.0.11:8080 down since 2030-01-01T00:00:01.000Z: refused"),
        (DRAINED, "10.2.0.12:8080 unchecked, drained"),
        (backend(checked=False), "10.2.0.10:8080 not checked yet"),
        (
            backend(checked=False, why="icmp checks need x"),
            "10.2.0.10:8080 not checked yet: icmp checks need x",
        ),
        (backend("fd00::1", port=0), "fd00::1 up since 2030-01-01T00:00:01.000Z"),
    ],
)
def test_sentence(state: dict[str, Any], text: str) -> None:
    assert sentence(state) == text
    assert text.startswith(f"{place(state)} {condition(state)}")


def test_a_service_is_shown_with_its_own_backends(site: Console, daemon: Start) -> None:
    site.ok("service", "set", "web", "--health", "tcp")
    daemon({"GET /v1/status": (200, STATUS | {"backends": [backend(), DOWN, OTHER]})})
    assert site.ok("service", "show", "web", "--output", "json").json["backends"] == [backend(), DOWN]
    lines = site.ok("service", "show", "web").out.splitlines()
    assert [line.removeprefix("backends").strip() for line in lines[-2:]] == [
        "10.2.0.10:8080 up since 2030-01-01T00:00:01.000Z",
        "10.2.0.11:8080 down since 2030-01-01T00:00:01.000Z: refused",
    ]


def test_without_a_daemon_their_state_is_not_known(site: Console) -> None:
    site.ok("service", "set", "web", "--health", "tcp")
    result = site.ok("service", "show", "web", "--output", "json")
    assert result.json["backends"] is None
    assert "no daemon runs: the state of the backends is not known" in result.err


def test_nobody_is_asked_about_what_is_neither_checked_nor_drained(site: Console) -> None:
    result = site.ok("service", "show", "web", "--output", "json")
    assert (result.json["backends"], result.err) == ([], "")


def test_status_counts_them_and_lists_those_out_of_service(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, STATUS | {"backends": [backend(), DOWN, DRAINED, OTHER]})})
    lines = console.ok("status").out.splitlines()
    assert "backends: 3 checked, 1 down, 1 drained" in lines
    at = next(number for number, line in enumerate(lines) if line.startswith("BACKEND "))
    assert [line.split()[:4] for line in lines[at : at + 4]] == [
        ["BACKEND", "SERVICE", "CHECK", "STATE"],
        ["10.2.0.11:8080", "web", "tcp", "down"],
        ["10.2.0.12:8080", "web", "none", "unchecked,"],
        [],
    ]
    assert console.ok("status", "--output", "json").json["backends"] == [backend(), DOWN, DRAINED, OTHER]


def test_status_lists_only_so_many(console: Console, daemon: Start) -> None:
    many = [backend(f"10.2.1.{number}", state="down") for number in range(200)]
    daemon({"GET /v1/status": (200, STATUS | {"backends": many})})
    shown = console.ok("status").out.splitlines()
    assert sum(line.startswith("10.2.1.") for line in shown) == 20
    assert "backends: 200 checked, 200 down, 0 drained" in shown
