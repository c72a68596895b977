"""explain, asked of the running programs: it agrees with policy, and leaves nothing behind."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.maptypes import MapType
from marchproxy.dataplane.kernel.objects import open_pinned_map
from marchproxy.model.reason import Reason
from rig import Appliance, Rig
from rig.traffic import ask_udp
from tests.dataplane.daemons import UnixConnection
from tests.namespace.conftest import define

pytestmark = [
    pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs"),
    # The first test waits for thirty commands, which on a busy machine take seconds each.
    pytest.mark.timeout(300),
]

MORE: tuple[tuple[str, ...], ...] = (
    ("mapping", "add", "turns", "--from", "clients", "--to", "farm", "--protocol", "tcp", "--listen",
     "10.1.0.1:8090", "--balance", "round-robin"),
    ("mapping", "add", "least", "--from", "clients", "--to", "farm", "--protocol", "tcp", "--listen",
     "10.1.0.1:8091", "--balance", "least-connections"),
    ("mapping", "add", "heard", "--from", "clients", "--to", "web", "--protocol", "tcp", "--ports", "90",
     "--action", "deny", "--audit", "on"),
    ("mapping", "add", "pings", "--from", "clients", "--to", "web", "--protocol", "icmp"),
    ("mapping", "add", "through", "--from", "clients", "--to", "web", "--protocol", "tcp,udp",
     "--ports", "80"),
    ("service", "add", "keyed", "--address", "10.2.1.2", "--port", "80", "--auth", "token"),
    ("mapping", "add", "keyed", "--from", "clients", "--to", "keyed", "--protocol", "tcp", "--listen",
     "10.1.0.1:8093", "--auth-required"),
    ("block", "add", "10.1.0.77"),
    ("limit", "add", "--name", "few", "--per", "source", "--packets-per-second", "1000"),
)  # fmt: skip
WITHOUT_VALUES = {
    MapType.RINGBUF,
    MapType.PERF_EVENT_ARRAY,
    MapType.SOCKMAP,
    MapType.SOCKHASH,
    MapType.DEVMAP,
    MapType.DEVMAP_HASH,
    MapType.ARRAY_OF_MAPS,
}
"""What cannot be read entry by entry. What is told through the ring is looked at as `flows --denied`."""
SCRATCH = {"scratch", "transit_state", "clean_pairs", "host_places", "settings"}
"""What every packet of the host itself changes too; in `settings`, every neighbour that it hears of."""


@pytest.fixture(scope="module")
def asked(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name="asked") as built:
        define(built)
        for words in MORE:
            built.cli(*words)
        built.start()
        yield built


def explain(appliance: Appliance, *words: str, source: str = "10.1.0.2") -> dict[str, Any]:
    answer: dict[str, Any] = appliance.json("explain", "--from", source, *words, check=False)
    return answer


@pytest.mark.parametrize(
    ("words", "source", "verdict", "reason", "mapping"),
    [
        ("--to 10.1.0.1 --port 8080", "10.1.0.2", "allow", "FORWARDED", "web"),
        ("--to fd01::1 --port 8080", "fd01::2", "allow", "FORWARDED", "web"),
        ("--to echo --port 7007", "10.1.0.2", "allow", "FORWARDED", "echo"),
        ("--to 10.1.0.1 --port 7007 --protocol udp", "10.1.0.2", "allow", "FORWARDED", "echo"),
        ("--to 10.1.0.1 --port 8081", "10.1.0.2", "allow", "FORWARDED", "farm"),
        ("--to 10.1.0.1 --port 8090", "10.1.0.2", "allow", "FORWARDED", "turns"),
        ("--to 10.1.0.1 --port 8091", "10.1.0.2", "allow", "FORWARDED", "least"),
        ("--to 10.1.0.1 --port 8082", "10.1.0.2", "deny", "NO_MAPPING", ""),
        ("--to 10.1.0.1 --port 8083", "10.1.0.2", "deny", "DENY_MAPPING", "forbidden"),
        ("--to 10.2.0.2 --port 90", "10.1.0.2", "audit", "DENY_MAPPING", "heard"),
        ("--to 10.2.0.2 --protocol icmp", "10.1.0.2", "allow", "FORWARDED", "pings"),
        ("--to fd02::2 --protocol icmp", "fd01::2", "allow", "FORWARDED", "pings"),
        ("--to 10.2.0.2 --port 80", "10.1.0.2", "allow", "FORWARDED", "through"),
        ("--to 10.2.0.2 --port 81", "10.1.0.2", "deny", "NO_MAPPING", ""),
        ("--to 10.1.0.1 --port 8080", "10.1.0.77", "deny", "BLOCKED_SOURCE", "block:10.1.0.77"),
        ("--to 10.1.0.1 --port 22", "10.1.0.2", "host", "PASSED_TO_HOST", ""),
        ("--to 10.1.0.1 --protocol icmp", "10.1.0.2", "host", "PASSED_TO_HOST", ""),
    ],
)
def test_kernel_and_policy_say_the_same(
    asked: Appliance, words: str, source: str, verdict: str, reason: str, mapping: str
) -> None:
    answer = explain(asked, *words.split(), source=source)
    kernel = answer["kernel"]
    assert (kernel["verdict"], kernel["reason"]) == (verdict, reason), answer
    assert (answer["verdict"], answer["reason"]) == (verdict, reason)
    assert kernel["mapping"].removeprefix("default/") == mapping
    assert answer["agrees"] is True
    assert kernel["interface"].startswith("inside")
    if verdict in ("allow", "audit") and "icmp" not in words and answer["backend"]:
        assert kernel["backend"] in answer["backend"].split(", ")


def test_what_wants_a_credential_is_left_to_user_space(asked: Appliance) -> None:
    answer = explain(asked, "--to", "10.1.0.1", "--port", "8093")
    assert (answer["verdict"], answer["reason"]) == ("deny", "AUTH_MISSING")
    assert answer["kernel"]["verdict"] == "host"
    assert answer["agrees"] is True


def test_a_token_says_whose_it_is_and_what_it_opens(asked: Appliance, tmp_path: Path) -> None:
    token = asked.json("token", "issue", "keyed")["token"]
    file = tmp_path / "token"
    file.write_text(token + "\n")
    where = ("--to", "10.1.0.1", "--port", "8093", "--token-file", str(file))
    answer = explain(asked, *where)
    assert (answer["verdict"], answer["token"]["service"], answer["token"]["opens"]) == (
        "allow",
        "keyed",
        True,
    )
    assert token not in str(answer)
    asked.cli("token", "revoke", "keyed")
    answer = explain(asked, *where)
    assert (answer["verdict"], answer["reason"], answer["token"]["opens"]) == ("deny", "AUTH_REVOKED", False)
    file.write_text("nonsense")
    assert explain(asked, *where)["reason"] == "AUTH_INVALID"


def test_nothing_is_left_behind(rig: Rig, asked: Appliance) -> None:
    # A flow that lives, and stays as it is for minutes.
    assert rig.client.call(ask_udp, "10.1.0.1", 7007, b"x") == b"x"
    before = _everything(asked)
    for words in (
        "--to 10.1.0.1 --port 8080",
        "--to 10.1.0.1 --port 8090",
        "--to 10.1.0.1 --port 8091",
        "--to 10.1.0.1 --port 8083",
        "--to 10.2.0.2 --port 90",
        "--to 10.2.0.2 --port 81",
        "--to 10.2.0.2 --port 80 --protocol udp",
        "--to 10.2.0.2 --protocol icmp",
    ):
        assert _asked_directly(asked, words)["kernel"]
    assert _asked_directly(asked, "--to 10.1.0.1 --port 8080", source="10.1.0.77")["kernel"]
    assert _everything(asked) == before
    shown = asked.json("flows", "--denied")
    assert [row for row in shown if row["destination_port"] in (81, 90, 8083)] == []


def _asked_directly(appliance: Appliance, words: str, source: str = "10.1.0.2") -> dict[str, Any]:
    """As `explain`, without a command for each question."""
    given = iter(words.replace("--", "").replace("to ", "destination ").split())
    question = {"source": source, "protocol": "tcp", **dict(zip(given, given, strict=True))}
    connection = UnixConnection(appliance.runtime / "control.sock")
    connection.request("POST", "/v1/explain", json.dumps(question))
    answer: dict[str, Any] = json.load(connection.getresponse())
    connection.close()
    return answer


def _everything(appliance: Appliance) -> dict[str, object]:
    """What the pinned maps hold, as digests."""
    found: dict[str, object] = {}
    for path in sorted((appliance.bpffs / f"v{bpf.ABI}").iterdir()):
        if not path.is_file() or path.name in SCRATCH:
            continue
        with open_pinned_map(path) as held:
            if held.type in WITHOUT_VALUES:
                continue
            entries = dict(held.items_percpu() if held.percpu else held.items())
        if path.name == "counters":
            entries.pop(layouts.U32.pack(Reason.PASSED_TO_HOST))
        found[path.name] = hashlib.sha256(repr(sorted(entries.items())).encode()).hexdigest()
    return found


def test_a_client_that_no_interface_leads_to(asked: Appliance) -> None:
    answer = explain(asked, "--to", "10.1.0.1", "--port", "8080", source="10.1.0.1")
    assert answer["kernel"] is None
    assert "no route leads to 10.1.0.1" in answer["kernel_note"]
    assert answer["agrees"] is None


def test_a_difference_is_found_and_loud(asked: Appliance) -> None:
    """Somebody has changed what the programs go by: what explain is asked of both for."""
    with open_pinned_map(asked.bpffs / f"v{bpf.ABI}" / "rules") as rules:
        kept = dict(rules.items())
        for key, raw in kept.items():
            mapping, first, size, reason, flags, balance = layouts.RULE.struct.unpack(raw)
            if reason == Reason.FORWARDED:
                denies = (mapping, first, size, Reason.DENY_MAPPING, flags, balance)
                rules.set(key, layouts.RULE.struct.pack(*denies))
        try:
            words = ("explain", "--from", "10.1.0.2", "--to", "10.1.0.1", "--port", "8080")
            result = asked.cli(*words, check=False)
        finally:
            rules.update_many(list(kept.items()))
    assert result.returncode == 1
    assert "the policy says allow, FORWARDED web, the kernel deny, DENY_MAPPING web" in result.stderr
    assert asked.daemon is not None
    asked.daemon.expect("the kernel and the policy differ")
    assert asked.cli(*words).returncode == 0


def test_without_a_route_the_kernel_refuses_what_policy_allows(rig: Rig, asked: Appliance) -> None:
    asked.cli("service", "add", "far", "--address", "203.0.113.7")
    asked.cli(
        "mapping", "add", "far", "--from", "clients", "--to", "far", "--protocol", "tcp", "--ports", "80"
    )
    result = asked.cli("explain", "--from", "10.1.0.2", "--to", "203.0.113.7", "--port", "80", check=False)
    assert result.returncode == 10
    assert "deny, NO_ROUTE" in result.stdout
