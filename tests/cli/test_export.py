"""`marchproxy export`."""

import hashlib
import json

import yaml

from tests.cli.console import Console


def test_the_bytes_are_what_the_history_names(site: Console) -> None:
    site.ok("service", "set", "web", "--description", "Grüße 漢字")
    text = site.ok("export").out
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        == (site.ok("revision", "list", "--output", "json").json[0]["sha256"])
    )
    assert site.ok("export", "--output", "json").out == text


def test_yaml_says_the_same(site: Console) -> None:
    assert yaml.safe_load(site.ok("export", "--output", "yaml").out) == site.ok("export").json


def test_one_cluster_goes_without_the_interfaces(site: Console) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    site.ok("cluster", "add", "lab")
    whole = site.ok("export").json
    one = site.ok("export", "--cluster", "default").json
    assert one == {"format": whole["format"], "clusters": [whole["clusters"][0]]}
    assert site.ok("export", "--cluster", "lab").json["clusters"] == [
        {"name": "lab", "services": [], "mappings": []}
    ]


def test_one_cluster_can_become_part_of_another_appliance(site: Console) -> None:
    text = site.ok("export", "--cluster", "default").out.replace('"default"', '"copy"')
    site.ok("apply", "-f", "-", stdin=text)
    names = [cluster["name"] for cluster in json.loads(site.ok("export").out)["clusters"]]
    assert names == ["copy", "default"]


def test_codes(site: Console) -> None:
    assert site("export", "--cluster", "nowhere").code == 3
    assert site("export", "--output", "table").code == 2
