"""`marchproxy explain`, with and without a daemon."""

from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.model.reason import Reason
from tests.cli.console import Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

QUESTION = ("explain", "--from", "10.1.0.5", "--to", "10.1.0.1", "--port", "80")
ANSWER: dict[str, Any] = {
    "verdict": "allow",
    "reason": "FORWARDED",
    "mapping": "cw",
    "source_service": "clients",
    "source_services": ["clients"],
    "destination_service": "web",
    "listener": "10.1.0.1:80/tcp",
    "backend": "10.2.0.10:8080",
    "backends": [],
    "why": ["because", "so"],
    "tier": "kernel",
    "revision": 7,
}


def test_the_daemon_is_asked_where_one_runs(console: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/explain": (200, ANSWER)})
    result = console.ok(*QUESTION, "--output", "json")
    assert result.json == ANSWER
    assert server.asked[0][1] == {
        "source": "10.1.0.5",
        "destination": "10.1.0.1",
        "port": "80",
        "protocol": "tcp",
    }


def test_sentences_for_people(console: Console, daemon: Start) -> None:
    daemon({"POST /v1/explain": (200, ANSWER)})
    assert console.ok(*QUESTION).out.splitlines() == [
        "allow, FORWARDED by mapping cw",
        "  because",
        "  so",
        "  (revision 7, tier kernel)",
    ]


@pytest.mark.parametrize(("verdict", "code"), [("allow", 0), ("deny", 10), ("host", 0)])
def test_the_code_is_the_verdict(console: Console, daemon: Start, verdict: str, code: int) -> None:
    daemon({"POST /v1/explain": (200, ANSWER | {"verdict": verdict})})
    assert console(*QUESTION).code == code


KERNEL = {
    "verdict": "allow",
    "reason": "FORWARDED",
    "mapping": "cw",
    "backend": "10.2.0.10:8080",
    "seen_as": "10.2.0.1:20000",
    "interface": "in0",
}


def test_what_the_kernel_says_is_shown(console: Console, daemon: Start) -> None:
    daemon({"POST /v1/explain": (200, ANSWER | {"kernel": KERNEL, "kernel_note": "", "agrees": True})})
    said = "allow, FORWARDED by mapping cw, to 10.2.0.10:8080, which sees 10.2.0.1:20000"
    assert console.ok(*QUESTION).out.splitlines()[3] == f"  the kernel, asked at in0: {said}"


def test_why_the_kernel_was_not_asked_is_shown(console: Console, daemon: Start) -> None:
    note = {"kernel": None, "kernel_note": "no route leads to 10.1.0.5", "agrees": None}
    daemon({"POST /v1/explain": (200, ANSWER | note)})
    assert "  not asked of the kernel: no route leads to 10.1.0.5" in console.ok(*QUESTION).out.splitlines()


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_difference_is_loud(console: Console, daemon: Start, output: str) -> None:
    kernel = KERNEL | {"verdict": "deny", "reason": "NO_MAPPING", "mapping": "", "backend": ""}
    daemon({"POST /v1/explain": (200, ANSWER | {"kernel": kernel, "kernel_note": "", "agrees": False})})
    result = console(*QUESTION, "--output", output)
    assert result.code == 1
    said = "the policy says allow, FORWARDED cw, the kernel deny, NO_MAPPING"
    assert result.err.startswith(f"error: the kernel and the policy differ: {said}\n")


def test_what_only_the_kernel_can_know_refuses_too(console: Console, daemon: Start) -> None:
    kernel = KERNEL | {"verdict": "deny", "reason": "NO_ROUTE", "backend": "", "seen_as": ""}
    daemon({"POST /v1/explain": (200, ANSWER | {"kernel": kernel, "kernel_note": "", "agrees": True})})
    result = console(*QUESTION)
    assert result.code == 10
    assert f"deny, NO_ROUTE by mapping cw: {Reason.NO_ROUTE.meaning}" in result.out


def test_a_url_brings_its_port_host_and_path(console: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/explain": (200, ANSWER)})
    console.ok("explain", "--from", "10.1.0.5", "--to", "https://10.1.0.1/status?a=b")
    assert server.asked[0][1] == {
        "source": "10.1.0.5",
        "destination": "10.1.0.1",
        "port": "443",
        "protocol": "tcp",
        "host": "10.1.0.1",
        "path": "/status",
        "query": "a=b",
    }


def test_a_url_is_asked_for_where_a_mapping_reads_requests(site: Console, daemon: Start) -> None:
    shop = ("mapping", "add", "shop", "--from", "all", "--to", "web", "--protocol", "https")
    site.ok(*shop, "--listen", "10.1.0.9:443", "--host", "*.example.com")
    server = daemon({"POST /v1/explain": (200, ANSWER)})
    site.ok(
        *("explain", "--from", "10.1.0.5", "--url", "https://shop.example.com/api/x?y=1", "--method", "POST"),
        *("--header", "X-Env: beta"),
    )
    assert server.asked[-1][1] == {
        "source": "10.1.0.5",
        "destination": "10.1.0.9",
        "port": "443",
        "protocol": "tcp",
        "host": "shop.example.com",
        "path": "/api/x",
        "query": "y=1",
        "method": "POST",
        "headers": ["X-Env: beta"],
    }


def test_something_has_to_be_asked_for(console: Console) -> None:
    refused = console("explain", "--from", "10.1.0.5", "--port", "80")
    assert refused.code == 2
    assert "--url" in refused.err


def test_host_and_path_of_a_request_may_be_said(console: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/explain": (200, ANSWER)})
    console.ok(*QUESTION, "--host", "shop.example.com", "--path", "/cart")
    assert server.asked[0][1]["host"] == "shop.example.com"
    assert server.asked[0][1]["path"] == "/cart"


def test_a_token_is_presented_and_not_shown(console: Console, daemon: Start) -> None:
    told = {"token": {"service": "web", "reason": "", "expires": "", "opens": True}}
    server = daemon({"POST /v1/explain": (200, ANSWER | told)})
    file = console.write("token", "s3cr3t\n")
    result = console.ok(*QUESTION, "--token-file", file, "--output", "json")
    assert server.asked[0][1]["token"] == "s3cr3t"
    assert "s3cr3t" not in result.out + result.err


def test_without_a_daemon_nobody_knows_tokens(site: Console) -> None:
    result = site(*QUESTION, "--token-file", site.write("token", "s3cr3t"))
    assert "only a running daemon knows tokens" in result.err


def test_without_a_daemon_the_policy_answers_and_says_so(site: Console) -> None:
    result = site.ok(*QUESTION, "--protocol", "tcp", "--output", "json")
    assert "no daemon runs" in result.err
    wanted = {
        "verdict": "allow",
        "reason": "FORWARDED",
        "mapping": "cw",
        "source_service": "clients",
        "destination_service": "web",
        "tier": "policy",
        "revision": 2,
    }
    assert {key: result.json[key] for key in wanted} == wanted
    assert {item["address"] for item in result.json["backends"]} == {"10.2.0.10", "10.2.0.11"}


@pytest.mark.parametrize(
    ("source", "destination", "port", "reason"),
    [
        ("192.0.2.1", "10.1.0.1", "80", "NO_MAPPING"),
        ("10.1.3.4", "10.1.0.1", "81", "NO_MAPPING"),
        ("10.1.3.4", "10.99.0.1", "80", "NO_MAPPING"),
    ],
)
def test_denials_are_10_with_their_reason(
    site: Console, source: str, destination: str, port: str, reason: str
) -> None:
    result = site("explain", "--from", source, "--to", destination, "--port", port, "--output", "json")
    assert (result.code, result.json["verdict"], result.json["reason"]) == (10, "deny", reason)


def test_a_service_is_asked_for_where_a_mapping_listens(site: Console) -> None:
    result = site.ok("explain", "--from", "10.1.3.4", "--to", "web", "--port", "80", "--output", "json")
    assert result.json["mapping"] == "cw"
    assert result.json["why"][0].endswith(" resolved to 10.1.0.1, port 80")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--from 10.1.3.4 --to no_such_service! --port 80", 3),
        ("--from nowhere --to 10.1.0.1 --port 80", 5),
        ("--from 10.1.3.4 --to 10.1.0.1 --port 0", 5),
        ("--from 10.1.3.4 --to 10.1.0.1 --port http", 5),
        ("--from 10.1.3.4 --to 10.1.0.1 --port 80 --protocol sctp", 5),
        ("--from 10.1.3.4 --to 10.1.0.1 --port 80 --protocol icmp", 5),
        ("--from 10.1.3.4 --to web --port 80 --cluster nowhere", 3),
        ("--from 10.1.3.4 --to 10.1.0.1", 2),
        ("--from 10.1.3.4 --to web", 2),
        ("--from fd00::1 --to 10.1.0.1 --port 80", 5),
        ("--to 10.1.0.1 --port 80", 2),
    ],
)
def test_questions_that_cannot_be_meant(site: Console, words: str, code: int) -> None:
    assert site("explain", *words.split()).code == code


def test_routed_traffic_and_pings_are_explained_too(site: Console) -> None:
    site.ok(*["mapping", "add", "out", "--from", "clients", "--to", "web", "--protocol", "tcp,icmp"])
    asked = ("explain", "--from", "10.1.3.4", "--to", "10.2.0.11", "--output", "json")
    routed = site.ok(*asked, "--port", "8080").json
    assert (routed["verdict"], routed["mapping"], routed["listener"], routed["backends"]) == (
        *("allow", "out", ""),
        [],
    )
    assert (routed["source_service"], routed["destination_service"]) == ("clients", "web")
    assert routed["destination_services"] == ["web"]
    ping = site.ok(*asked, "--protocol", "icmp").json
    assert (ping["verdict"], ping["mapping"]) == ("allow", "out")
    assert site(*asked, "--port", "22").code == 10


def test_a_service_is_pinged_at_its_own_address(site: Console) -> None:
    result = site(*["explain", "--from", "10.1.3.4", "--to", "web", "--protocol", "icmp", "--output", "json"])
    assert (result.code, result.json["reason"]) == (10, "NO_MAPPING")
    assert result.json["why"][0] == "destination web resolved to 10.2.0.10"


def test_what_a_service_resolved_to_is_the_first_of_the_chain(site: Console) -> None:
    _, first, *_ = site("explain", "--from", "10.1.3.4", "--to", "web", "--port", "80").out.splitlines()
    assert first.startswith("  destination web resolved to "), first
    plain = site("explain", "--from", "10.1.3.4", "--to", "10.2.0.10", "--port", "80").out
    assert "resolved" not in plain


def test_audit_lets_through(console: Console, daemon: Start) -> None:
    daemon({"POST /v1/explain": (200, ANSWER | {"verdict": "audit", "reason": "NO_MAPPING", "mapping": ""})})
    result = console.ok(*QUESTION)
    assert result.out.splitlines()[0] == "audit, NO_MAPPING"
