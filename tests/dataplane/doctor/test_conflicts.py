"""conflicts: others who decide about the same packets."""

import json
import os
import shutil
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane.doctor import conflicts
from marchproxy.dataplane.doctor.conflicts import Chain, Rules
from rig import Host
from rig.lifecycle import unique_name
from tests.dataplane.doctor.patient import Patient, wrong


def chain(hook: str, policy: str, name: str = "input") -> Chain:
    return {"family": "inet", "table": "filter", "name": name, "hook": hook, "policy": policy}


@pytest.mark.parametrize("hook", ["prerouting", "input", "forward"])
def test_a_chain_that_drops_by_default(patient: Patient, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    rules = Rules([chain(hook, "drop"), chain("output", "drop")], [])
    monkeypatch.setattr(conflicts, "list_rules", lambda: rules)
    (finding,) = conflicts.firewall(patient.case)
    assert finding.fix == "nft list chain inet filter input"


def test_chains_that_accept_are_fine(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "list_rules", lambda: Rules([chain("input", "accept")], []))
    assert not wrong(list(conflicts.firewall(patient.case)))
    monkeypatch.setattr(conflicts, "list_rules", lambda: None)
    assert list(conflicts.firewall(patient.case)) == []


def rule(handle: int, *expressions: dict[str, Any], at: str = "input") -> dict[str, Any]:
    return {"family": "inet", "table": "filter", "chain": at, "handle": handle, "expr": list(expressions)}


@pytest.mark.parametrize("hook", ["prerouting", "input", "forward"])
@pytest.mark.parametrize(
    ("expression", "does"),
    [
        ({"drop": None}, "drop"),
        ({"reject": {"type": "tcp reset"}}, "reject"),
        ({"dnat": {"addr": "192.0.2.1"}}, "dnat"),
        ({"redirect": {"port": 80}}, "redirect"),
        ({"vmap": {"key": {}, "data": {"set": [[22, {"accept": None}], [23, {"drop": None}]]}}}, "drop"),
        ({"xt": {"type": "target", "name": "DNAT"}}, "dnat"),
    ],
)
def test_rules_that_decide_in_chains_that_accept(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, hook: str, expression: dict[str, Any], does: str
) -> None:
    rules = Rules(
        [chain(hook, "accept")], [rule(3, {"counter": None}, {"accept": None}), rule(4, expression)]
    )
    monkeypatch.setattr(conflicts, "list_rules", lambda: rules)
    (finding,) = conflicts.firewall(patient.case)
    assert finding.evidence == f"chain inet filter input: input handle 4 ({does})"
    assert finding.fix == "nft --handle list chain inet filter input"
    assert finding.message.startswith(f"nftables rules {does} some of what ")


def test_rules_of_chains_that_are_jumped_to_count_and_others_do_not(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Rules(
        [chain("input", "accept"), chain("output", "accept", "out"), chain("", "", "own")],
        [
            rule(1, {"jump": {"target": "own"}}),
            rule(2, {"goto": {"target": "input"}}, at="own"),
            *[rule(number, {"drop": None}, at="own") for number in range(3, 10)],
            rule(20, {"drop": None}, at="out"),
        ],
    )
    monkeypatch.setattr(conflicts, "list_rules", lambda: rules)
    (finding,) = conflicts.firewall(patient.case)
    assert finding.evidence.startswith("chain inet filter input: own handle 3 (drop), own handle 4 (drop)")
    assert finding.evidence.endswith(" and 2 more")


def test_iptables_of_old(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "list_rules", lambda: Rules([], []))
    patient.write("proc/net/ip_tables_names", "filter\nnat\n")
    (finding,) = conflicts.firewall(patient.case)
    assert finding.evidence == "filter, nat"


def test_kube_proxy_is_known_by_its_chains(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "list_chains", lambda: [chain("", "", "KUBE-SERVICES")])
    (finding,) = conflicts.kube_proxy(patient.case)
    assert finding.evidence == "filter KUBE-SERVICES"
    monkeypatch.setattr(conflicts, "list_chains", lambda: [chain("input", "drop")])
    assert list(conflicts.kube_proxy(patient.case)) == []


def nft(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Something else is called nft."""
    path = folder / "nft"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_chains_are_read_from_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"nftables": [{"metainfo": {}}, {"chain": chain("input", "drop")}]}
    nft(tmp_path, monkeypatch, f"echo '{json.dumps(said)}'")
    assert conflicts.list_chains() == [chain("input", "drop")]


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "echo '{}'"])
def test_what_nft_cannot_say_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    nft(tmp_path, monkeypatch, script)
    assert conflicts.list_chains() is None


def test_an_nft_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nft", 5)

    nft(tmp_path, monkeypatch, "")
    monkeypatch.setattr(subprocess, "run", hang)
    assert conflicts.list_chains() is None


@pytest.mark.requires("root", "netns", commands=["nft"])
def test_real_rules_are_understood(patient: Patient, tmp_path: Path) -> None:
    script = """
    table inet shop {
      set bad { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 } }
      chain own { ip saddr @bad drop; }
      chain incoming { type filter hook input priority 0; policy accept; jump own; tcp dport 81 reject; }
      chain pre { type nat hook prerouting priority -100; tcp dport 80 dnat ip to 192.0.2.9:8080; }
      chain out { type filter hook output priority 0; udp dport 9 drop; }
    }
    """
    with closing(Host(unique_name(), tmp_path)) as host:
        host.run(["nft", "-f", "-"], stdin=script)
        found = host.call(lambda: list(conflicts.firewall(patient.case)))
    evidence = sorted(each.evidence for each in found)
    assert [text.partition(":")[0] for text in evidence] == [
        "chain inet shop incoming",
        "chain inet shop pre",
    ]
    assert "(reject)" in evidence[0]
    assert "own handle" in evidence[0]
    assert evidence[1].endswith("(dnat)")
