"""conflicts: others who decide about the same packets."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from marchproxy.dataplane.doctor import conflicts
from marchproxy.dataplane.doctor.conflicts import Chain
from tests.dataplane.doctor.patient import Patient, wrong


def chain(hook: str, policy: str, name: str = "input") -> Chain:
    return {"family": "inet", "table": "filter", "name": name, "hook": hook, "policy": policy}


@pytest.mark.parametrize("hook", ["input", "forward"])
def test_a_chain_that_drops_by_default(patient: Patient, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    monkeypatch.setattr(conflicts, "list_chains", lambda: [chain(hook, "drop"), chain("output", "drop")])
    (finding,) = conflicts.firewall(patient.case)
    assert finding.fix == "nft list chain inet filter input"


def test_chains_that_accept_are_fine(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "list_chains", lambda: [chain("input", "accept")])
    assert not wrong(list(conflicts.firewall(patient.case)))
    monkeypatch.setattr(conflicts, "list_chains", lambda: None)
    assert list(conflicts.firewall(patient.case)) == []


def test_iptables_of_old(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "list_chains", lambda: [])
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
