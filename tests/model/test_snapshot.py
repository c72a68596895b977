import hashlib
import json

import pytest
from hypothesis import given

from marchproxy.model.documents import Document, read_interface, read_service
from marchproxy.model.entities import ClusterHead
from marchproxy.model.errors import InvalidValue
from marchproxy.model.snapshot import Cluster, Snapshot, read_snapshot
from tests.model.strategies import snapshots

WEB: Document = {"name": "web", "addresses": ["10.0.0.1"]}
API: Document = {"name": "api", "addresses": ["10.0.0.2"], "description": "größer"}


def _document(*services: Document) -> Document:
    return {"format": "marchproxy/1", "clusters": [{"name": "default", "services": list(services)}]}


@given(snapshots())
def test_a_snapshot_is_its_canonical_json(snapshot: Snapshot) -> None:
    canonical = snapshot.canonical()
    read = read_snapshot(json.loads(canonical))
    assert read == snapshot
    assert read.canonical() == canonical
    assert snapshot.sha256() == hashlib.sha256(canonical).hexdigest()


def test_canonical_json_to_the_byte() -> None:
    snapshot = Snapshot(
        (Cluster("default", (read_service(API),)),), (read_interface({"name": "e", "role": "inside"}),)
    )
    assert snapshot.canonical().decode() == (
        '{"clusters":[{"mappings":[],"name":"default","services":'
        '[{"addresses":["10.0.0.2"],"description":"größer","name":"api"}]}],'
        '"format":"marchproxy/1","interfaces":[{"name":"e","role":"inside"}]}\n'
    )


def test_the_hash_of_an_empty_store_never_changes() -> None:
    """Every store begins with it; a new field at its default must not move it."""
    assert Snapshot().sha256() == "e5877eb4a96237254a6997f4d306207317d3e3e230502ecabd9507331eb3fa1a"


FIRST: Document = {
    "format": "marchproxy/1",
    "interfaces": [{"name": "eth0", "role": "inside"}, {"name": "eth1", "role": "outside", "mode": "tc"}],
    "clusters": [
        {
            "name": "default",
            "services": [
                WEB | {"port": 8080, "health": "http:/ok", "health_interval": 5, "tags": ["a"], "tls": True}
            ],
            "mappings": [
                {
                    "name": "m",
                    "sources": ["external"],
                    "destinations": ["web"],
                    "protocols": ["http"],
                    "listen": "*:80",
                    "expires": "2030-01-31T18:00:00Z",
                    "auth_required": True,
                }
            ],
        },
        {"name": "lab"},
    ],
}


def test_the_hash_of_what_the_first_version_wrote_never_changes() -> None:
    assert read_snapshot(FIRST).sha256() == "98c3166a544bf6e5cef20db11be8d8ea839b716b896f0b3fa6f8a92d5fb2ecde"


def test_the_canonical_json_of_what_belongs_to_the_appliance() -> None:
    own = {
        "blocks": [{"name": "*.bad.example", "reason": "spam"}, {"name": "192.0.2.0/24"}],
        "block_lists": [{"name": "bad", "sha256": "ab" * 32, "entries": 7}],
        "limits": [{"name": "l", "per": "source", "packets_per_second": 9, "exempt": ["10.0.0.1"]}],
        "listeners": [{"name": "dns@10.0.0.1:53", "kind": "dns", "bind": "10.0.0.1:53"}],
        "settings": {"audit": True, "resolvers": ["192.0.2.53"]},
    }
    snapshot = read_snapshot(_document(WEB) | own)
    written = snapshot.document()
    assert {key: written[key] for key in own} == own
    assert read_snapshot(json.loads(snapshot.canonical())) == snapshot
    assert Snapshot(snapshot.clusters).document().keys() == {"format", "interfaces", "clusters"}


def test_a_cluster_in_audit() -> None:
    document = _document(WEB)
    document["clusters"][0]["audit"] = True
    snapshot = read_snapshot(document)
    assert snapshot.clusters[0].audit
    assert snapshot.clusters[0].head == ClusterHead("default", audit=True)
    assert snapshot.document()["clusters"][0]["audit"] is True
    assert "audit" not in read_snapshot(_document(WEB)).document()["clusters"][0]


def test_order_in_a_file_does_not_matter() -> None:
    assert read_snapshot(_document(WEB, API)) == read_snapshot(_document(API, WEB))
    assert [service.name for service in read_snapshot(_document(WEB, API)).clusters[0].services] == [
        "api",
        "web",
    ]


def test_finds_a_cluster_by_name() -> None:
    snapshot = read_snapshot(_document(WEB))
    assert snapshot.cluster("default") is snapshot.clusters[0]
    assert snapshot.cluster("lab") is None


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (None, "format"),
        ([], "format"),
        ({}, "format"),
        ({"format": "marchproxy/2"}, "format"),
        ({"format": "marchproxy/1", "colour": 1, 2: 3}, "field"),
        ({"format": "marchproxy/1", "clusters": {}}, "clusters"),
        ({"format": "marchproxy/1", "clusters": [[]]}, "cluster"),
        ({"format": "marchproxy/1", "clusters": [{"name": 7}]}, "cluster"),
        ({"format": "marchproxy/1", "clusters": [{"name": "a b"}]}, "name"),
        ({"format": "marchproxy/1", "clusters": [{"name": "a", 1: 2, "x": 3}]}, "field"),
        ({"format": "marchproxy/1", "clusters": [{"name": "a"}, {"name": "a"}]}, "name"),
        ({"format": "marchproxy/1", "interfaces": [{"name": "e", "role": "up"}]}, "role"),
        ({"format": "marchproxy/1", "clusters": [{"name": "a", "audit": 1}]}, "audit"),
        ({"format": "marchproxy/1", "limits": [{"name": "a", "per": "day"}]}, "per"),
        ({"format": "marchproxy/1", "blocks": [{"name": "::1"}, {"name": "::1/128"}]}, "name"),
        ({"format": "marchproxy/1", "settings": []}, "settings"),
        ({"format": "marchproxy/1", "settings": {"name": "other"}}, "name"),
        (_document(WEB, WEB), "name"),
        (_document(WEB, {"name": "x"}), "addresses"),
    ],
)
def test_refuses_what_is_no_snapshot(document: object, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_snapshot(document)
    assert caught.value.field == field


def test_says_which_name_is_there_twice() -> None:
    with pytest.raises(InvalidValue) as caught:
        read_snapshot(_document(WEB, API, WEB))
    assert (caught.value.value, caught.value.expected) == ("web", "a name that no other service has")
