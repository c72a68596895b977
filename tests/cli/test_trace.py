"""`marchproxy trace`: names, sums and refusals. What BCC sees: tests/namespace/test_tracing.py."""

import os
import sys

import pytest

from marchproxy.cli.trace import _Services
from tests.cli.console import Console

SLOW = {"kind": "latency", "backend": "10.2.0.10", "port": 8080, "what": "connect"}


def test_backends_of_a_service_are_summed_up(site: Console) -> None:
    services = _Services(site.environment())
    found = [
        SLOW | {"count": 3, "total_ns": 3_000_000, "slots": {"1": 1, "11": 2}},
        SLOW | {"backend": "10.2.0.11", "count": 1, "total_ns": 1_000_000, "slots": {"11": 1}},
        SLOW | {"backend": "192.0.2.1", "what": "unanswered", "count": 2, "total_ns": 0, "slots": {}},
    ]
    assert services.latencies(found, None) == [
        {"service": "192.0.2.1", "what": "unanswered", "count": 2, "mean_us": None, "histogram": []},
        {
            "service": "web",
            "what": "connect",
            "count": 4,
            "mean_us": 1000.0,
            "histogram": [
                {"from_us": 0, "to_us": 1, "count": 1},
                {"from_us": 1024, "to_us": 2047, "count": 3},
            ],
        },
    ]
    assert [row["service"] for row in services.latencies(found, "web")] == ["web"]
    assert services.latencies(found, "clients") == []


def test_both_ends_have_their_service(site: Console) -> None:
    services = _Services(site.environment())
    event = {
        "source": "10.1.2.3",
        "source_port": 4,
        "destination": "10.2.0.10",
        "destination_port": 80,
        "protocol": 17,
    }
    row = services.complete(event)
    assert (row["source_service"], row["destination_service"], row["protocol"]) == ("clients", "web", "udp")
    assert services.is_meant(row, "web")
    assert services.is_meant(row, "clients")
    assert not services.is_meant(row, "others")


@pytest.mark.requires("root", "btf")
@pytest.mark.parametrize("python", [sys.executable, "/nowhere/python3"])
@pytest.mark.parametrize("question", ["latency", "retransmits", "drops"])
def test_without_bcc_it_says_what_to_install(site: Console, question: str, python: str) -> None:
    site.variables["MARCHPROXY_BCC_PYTHON"] = python
    result = site("trace", question)
    assert result.code == 1
    assert f"BCC is not installed: {python} cannot import bcc" in result.err
    assert "apt install python3-bpfcc" in result.err


def test_without_root(site: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = site("trace", "drops")
    assert result.code == 7
    assert "sudo" in result.err


def test_values_that_cannot_be_meant(site: Console) -> None:
    assert site("trace", "latency", "--duration", "0").code == 5
    assert site("trace", "latency", "--duration", "2d").code == 5
    assert site("trace", "drops", "--rate", "0").code == 2
    assert site("trace").code == 2
    assert site("trace", "drops", "--service", "nobody").code == 3
