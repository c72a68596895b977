"""What audit saw: aggregated, bounded, and kept over restarts."""

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from marchproxy.dataplane import learning as module
from marchproxy.dataplane.learning import Learning, learned_document, learned_file
from marchproxy.dataplane.records import Decision
from marchproxy.model.reason import Reason, Verdict
from tests.dataplane.facts import NOON, decision


def audited(source: str = "10.0.0.1", **fields: Any) -> Decision:
    made = decision(source, Reason.NO_MAPPING, mapping="", verdict=Verdict.AUDIT)
    return replace(made, **fields)


def test_the_same_is_counted_once_and_for_all() -> None:
    learning = Learning(None)
    learning.take(audited(source_service="clients"))
    learning.take(audited(source_port=50_001, time=NOON + 60, count=3, name="api.example.com"))
    learning.take(audited(time=NOON + 90))
    (row,) = learning.observations()
    assert (row.count, row.first, row.last) == (5, NOON, NOON + 90)
    assert (str(row.source), row.port, row.name) == ("10.0.0.1/32", 443, "api.example.com")


def test_ends_and_mappings_are_told_apart() -> None:
    learning = Learning(None)
    for fields in ({}, {"destination_port": 80}, {"protocol": "udp"}, {"mapping": "no"}):
        learning.take(audited(**fields))
    learning.take(audited(protocol="icmp", destination_port=7))
    learning.take(audited(protocol="icmp", destination_port=8))
    learning.take(audited(protocol="47"))
    rows = learning.observations()
    assert len(rows) == 5
    assert {(row.port, row.count) for row in rows if row.protocol == "icmp"} == {(0, 2)}


def test_many_clients_become_their_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDENED", 2)
    learning = Learning(None)
    for source in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.1", "fd00::1"):
        learning.take(audited(source, destination=ip_address("192.0.2.1")))
    assert {str(row.source): row.count for row in learning.observations()} == {
        "10.0.0.1/32": 2,
        "10.0.0.2/32": 1,
        "10.0.0.0/24": 2,
        "fd00::/64": 1,
    }


def test_beyond_the_bound_is_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    learning = Learning(None)
    for port in (1, 2, 3, 1):
        learning.take(audited(destination_port=port, count=2))
    assert learning.missed == 2
    assert {row.port: row.count for row in learning.observations()} == {1: 4, 2: 2}


def test_it_outlives_the_daemon(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    learning = Learning(file)
    assert not file.exists()
    learning.take(audited())
    learning.save()
    written = file.read_bytes()
    learning.save()
    assert file.read_bytes() == written
    again = Learning(file)
    assert learned_document(again) == learned_document(learning)
    again.take(audited(time=NOON + 5))
    assert again.observations()[0].count == 2
    assert [path.name for path in tmp_path.iterdir()] == ["learned.json"]


def test_it_is_written_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learning = Learning(tmp_path / "learned.json")
    monkeypatch.setattr(module, "EVERY", 0.0)
    assert not learning.due()
    learning.take(audited())
    assert learning.due()
    learning.save()
    assert not learning.due()


def test_forgetting_is_kept_too(tmp_path: Path) -> None:
    file = tmp_path / "learned.json"
    learning = Learning(file)
    learning.take(audited())
    learning.save()
    assert learning.forget() == 1
    learning.save()
    assert Learning(file).observations() == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"format": "other/1", "missed": 0, "observations": []}',
        b'{"format": "marchproxy-learned/1", "missed": 0, "observations": [7]}',
        b'{"format": "marchproxy-learned/1", "observations": []}',
    ],
)
def test_damage_starts_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "learned.json"
    file.write_bytes(content)
    learning = Learning(file)
    assert learning.observations() == []
    assert "learning starts anew" in caplog.text
    learning.take(audited())
    learning.save()
    assert json.loads(file.read_bytes())["format"] == "marchproxy-learned/1"


def test_what_cannot_be_written_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learning = Learning(tmp_path / "gone" / "learned.json")
    learning.take(audited())
    learning.save()
    assert "cannot be kept" in caplog.text
    (tmp_path / "gone").mkdir()
    learning.save()
    assert (tmp_path / "gone" / "learned.json").exists()


def test_the_file_is_beside_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert learned_file(tmp_path) == tmp_path / "learned.json"
    monkeypatch.setenv("MARCHPROXY_STATE_DIR", str(tmp_path / "nowhere"))
    assert learned_file(None) is None
