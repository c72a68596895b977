"""The invented large policy is one that the product takes."""

from typing import Any

from benchmarks.policies import large
from marchproxy.model.snapshot import read_snapshot

BASE: dict[str, Any] = {
    "format": "marchproxy/1",
    "clusters": [
        {"name": "default", "services": [{"name": "web", "addresses": ["10.2.0.2"]}], "mappings": []}
    ],
    "interfaces": [],
}


def test_it_has_the_size_asked_for_and_the_base_inside() -> None:
    grown = large(BASE, 1000)
    cluster = grown["clusters"][0]
    assert len(cluster["services"]) == 1001
    assert len(cluster["mappings"]) == 1000
    assert cluster["services"][0] == BASE["clusters"][0]["services"][0]
    assert read_snapshot(grown).document()["clusters"][0]["mappings"] == sorted(
        cluster["mappings"], key=lambda one: str(one["name"])
    )
