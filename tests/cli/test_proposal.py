"""What a file asks for."""

from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.cli import proposal as module
from marchproxy.cli.errors import InvalidFile, WrongUsage
from marchproxy.cli.proposal import propose
from marchproxy.model.errors import InvalidValue, NotFound
from marchproxy.model.snapshot import Snapshot, read_snapshot

SERVICE = {"name": "web", "addresses": ["10.0.0.1"]}
OTHER = {"name": "other", "addresses": ["10.0.0.2"]}
INTERFACE = {"name": "eth0", "role": "inside"}


def snapshot(**clusters: list[dict[str, Any]]) -> Snapshot:
    """A snapshot with these services, and one interface."""
    return read_snapshot(
        {
            "format": "marchproxy/1",
            "interfaces": [INTERFACE],
            "clusters": [{"name": name, "services": services} for name, services in clusters.items()],
        }
    )


HELD = snapshot(default=[OTHER], lab=[OTHER])


@pytest.mark.parametrize(
    ("document", "cluster", "expected"),
    [
        pytest.param({"services": [SERVICE]}, None, snapshot(default=[SERVICE], lab=[OTHER]), id="default"),
        pytest.param({"services": [SERVICE]}, "lab", snapshot(default=[OTHER], lab=[SERVICE]), id="lab"),
        pytest.param({"mappings": []}, "lab", snapshot(default=[OTHER], lab=[]), id="nothing means nothing"),
        pytest.param({"services": None}, "lab", snapshot(default=[OTHER], lab=[]), id="an empty YAML key"),
        pytest.param(
            {"format": "marchproxy/1", "clusters": [{"name": "new", "services": [SERVICE]}]},
            None,
            snapshot(default=[OTHER], lab=[OTHER], new=[SERVICE]),
            id="a new cluster",
        ),
    ],
)
def test_clusters_become_equal_to_the_file_and_others_stay(
    document: dict[str, Any], cluster: str | None, expected: Snapshot
) -> None:
    proposal = propose(document, "site.yaml", cluster)
    assert proposal.replaces
    assert proposal.build(HELD) == expected


def test_interfaces_are_the_files_if_it_has_them() -> None:
    for document in (
        {"services": [OTHER]},
        {"format": "marchproxy/1", "clusters": [{"name": "lab", "services": [OTHER]}]},
    ):
        assert propose(document, "f", None).build(HELD).interfaces == HELD.interfaces
        without = propose(document | {"interfaces": []}, "f", None).build(HELD)
        assert without.interfaces == ()
        assert without.clusters == HELD.clusters


OWN = {
    "limits": [{"name": "all", "per": "total", "packets_per_second": 9}],
    "settings": {"audit": True},
    "blocks": [{"name": "192.0.2.7"}],
}
RICH = read_snapshot(HELD.document() | OWN)


def test_what_belongs_to_the_appliance_is_the_files_key_by_key() -> None:
    for key, value in OWN.items():
        assert propose({key: value}, "f", None).build(HELD) == read_snapshot(HELD.document() | {key: value})
        without = propose({key: None}, "f", None).build(RICH)
        assert without == read_snapshot(HELD.document() | {name: OWN[name] for name in OWN if name != key})
    assert propose({"services": [OTHER]}, "f", None).build(RICH) == RICH


def test_an_export_is_the_whole_appliance() -> None:
    """It leaves out what there is none of, and that is what it means."""
    assert propose(HELD.document(), "f", None).build(RICH) == HELD
    assert propose(RICH.document(), "f", None).build(HELD) == RICH


def test_a_cluster_keeps_its_audit_in_a_file_without_clusters() -> None:
    document = HELD.document()
    document["clusters"][0]["audit"] = True
    audited = read_snapshot(document)
    assert propose({"services": [OTHER]}, "f", None).build(audited) == audited
    assert propose(HELD.document(), "f", None).build(audited) == HELD


def test_a_misspelt_cluster_is_not_created() -> None:
    with pytest.raises(NotFound, match="'defualt'"):
        propose({"services": []}, "f", "defualt").build(HELD)
    with pytest.raises(NotFound, match="'defualt'"):
        propose({"services": [], "metadata": {}}, "f", "defualt").build(HELD)


def test_a_file_with_clusters_takes_no_other() -> None:
    with pytest.raises(WrongUsage, match="names its clusters itself"):
        propose({"format": "marchproxy/1", "clusters": []}, "f", "lab")


def test_a_file_without_anything_of_a_cluster_takes_none() -> None:
    with pytest.raises(WrongUsage, match="neither services nor mappings"):
        propose({"limits": []}, "f", "lab")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"service": []}, "site.yaml: field: 'service'"),
        ({"clusters": []}, "site.yaml: format"),
        ({}, "site.yaml: file: {}"),
        ({"format": "marchproxy/1"}, "site.yaml: clusters: []"),
        ({"format": "marchproxy/1", "clusters": []}, "site.yaml: clusters: []"),
        ({"format": "marchproxy/1", "interfaces": [], "clusters": []}, "site.yaml: clusters: []"),
        ({"limits": [{"name": "x", "per": "total"}]}, 'site.yaml, limit "x": packets_per_second'),
        ({"settings": {"flow_table": 7}}, "site.yaml, settings: flow_table: 7"),
        ({"format": "marchproxy/2"}, "site.yaml: format: 'marchproxy/2'"),
        ({"services": {}}, "site.yaml"),
        ({"services": [SERVICE, SERVICE]}, "site.yaml"),
        ({"services": [{"name": "x", "addresses": ["nowhere at all"]}]}, 'site.yaml, service "x": addresses'),
        ({"services": [{"addresses": ["10.0.0.1"]}]}, "site.yaml, service"),
        ({"services": ["web"]}, "site.yaml"),
        ({"services": [], "metadata": {}, "interfaces": []}, "site.yaml"),
    ],
)
def test_errors_name_file_entry_and_field(document: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        propose(document, "site.yaml", None).build(HELD)
    assert caught.value.message.startswith(says)


def test_an_import_adds_and_updates_and_removes_nothing() -> None:
    document = {
        "services": [
            {"name": "web", "ip_fqdn": "10.0.0.1", "port": 80},
            {"name": "other", "ip_fqdn": "10.0.0.3", "port": 81},
        ],
        "mappings": [{"name": "m", "source_services": "all", "dest_services": ["web"], "protocol": "tcp"}],
    }
    proposal = propose(document, "fleet.json", "lab")
    assert not proposal.replaces
    result = proposal.build(HELD)
    assert result.cluster("default") == HELD.cluster("default")
    assert result.interfaces == HELD.interfaces
    assert result.document()["clusters"][1] == {
        "name": "lab",
        "services": [
            {"name": "other", "addresses": ["10.0.0.3"], "port": 81},
            {"name": "web", "addresses": ["10.0.0.1"], "port": 80},
        ],
        "mappings": [{"name": "m", "sources": ["all"], "destinations": ["web"], "protocols": ["tcp"]}],
    }


@pytest.mark.parametrize(
    "wrap", [lambda held: held, lambda held: {"clusters": [{"name": "default", **held}]}]
)
@pytest.mark.parametrize("key", ["services", "mappings"])
def test_masses_are_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch, key: str, wrap: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    document = wrap({key: [{"nonsense": True}] * 4})
    with pytest.raises(InvalidFile, match=f"site.yaml has 4 {key}: an appliance carries 3"):
        propose(document, "site.yaml", None)


def test_a_merging_file_adds_and_updates_and_removes_nothing() -> None:
    before = read_snapshot(
        {
            "format": "marchproxy/1",
            "clusters": [
                {
                    "name": "default",
                    "services": [
                        {"name": "a", "addresses": ["10.0.0.1"]},
                        {"name": "b", "addresses": ["10.0.0.2"]},
                    ],
                }
            ],
        }
    )
    document = {"merge": True, "services": [{"name": "b", "addresses": ["10.0.0.9"]}], "mappings": []}
    proposal = propose(document, "learned.yaml", None)
    assert not proposal.replaces
    (cluster,) = proposal.build(before).clusters
    assert [(each.name, str(each.addresses[0])) for each in cluster.services] == [
        ("a", "10.0.0.1/32"),
        ("b", "10.0.0.9/32"),
    ]
    assert propose({"merge": True}, "empty.yaml", None).build(before) == before


@pytest.mark.parametrize(
    "document",
    [
        {"merge": False, "services": []},
        {"merge": "yes"},
        {"merge": True, "settings": {}},
        {"merge": True, "services": [{"name": "b"}]},
    ],
)
def test_merging_files_that_cannot_be_meant(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="learned"):
        propose(document, "learned.yaml", None)
