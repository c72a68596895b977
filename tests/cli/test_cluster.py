"""`marchproxy cluster`, as an operator uses it."""

from pathlib import Path

from marchproxy.store.store import Store
from tests.cli.console import Console


def test_add_prints_a_key_that_works_and_nothing_else(site: Console) -> None:
    result = site.ok("cluster", "add", "lab")
    key = result.out.removesuffix("\n")
    assert len(key) >= 32
    assert key.isprintable()
    assert key not in result.err
    with Store.open(Path(site.variables["MARCHPROXY_STATE_DIR"])) as store:
        assert store.verify_cluster_key("lab", key)
        assert not store.verify_cluster_key("default", key)


def test_rotate_key_prints_a_new_one_beside_the_old(site: Console) -> None:
    old = site.ok("cluster", "add", "lab", "--output", "json").json
    new = site.ok("cluster", "rotate-key", "lab", "--output", "json").json
    assert old["name"] == new["name"] == "lab"
    assert old["api_key"] != new["api_key"]
    with Store.open(Path(site.variables["MARCHPROXY_STATE_DIR"])) as store:
        assert store.verify_cluster_key("lab", old["api_key"])
        assert store.verify_cluster_key("lab", new["api_key"])


def test_list_and_show_count_what_is_in_them(site: Console) -> None:
    site.ok("cluster", "add", "lab")
    expected = [
        {"name": "default", "services": 2, "mappings": 1, "audit": False},
        {"name": "lab", "services": 0, "mappings": 0, "audit": False},
    ]
    found = site.ok("cluster", "list", "--output", "json").json
    assert [{key: row[key] for key in expected[0]} for row in found] == expected
    assert site.ok("cluster", "show", "lab", "--output", "json").json == expected[1]
    assert site.ok("cluster", "list").out.splitlines()[1].split() == ["default", "2", "1", "no"]


def test_audit_on_and_off(site: Console) -> None:
    before = site.ok("export").out
    changed = site.ok("cluster", "set", "default", "--audit", "on", "--output", "json")
    expected = {"name": "default", "services": 2, "mappings": 1, "audit": True}
    assert expected.items() <= changed.json.items()
    assert site.ok("export").json["clusters"][0]["audit"] is True
    assert "    audit: - -> yes" in site.ok("revision", "show", "3").out.splitlines()
    assert (
        site.ok("cluster", "set", "default", "--audit", "on").err == "nothing to change: revision 3 stays\n"
    )
    site.ok("cluster", "set", "default", "--audit", "off")
    assert site.ok("export").out == before
    assert site("cluster", "set", "nowhere", "--audit", "on").code == 3
    assert site("cluster", "set", "default", "--audit", "maybe").code == 5
    assert site("cluster", "set", "default").code == 2


def test_remove_takes_everything_in_it(site: Console) -> None:
    site.ok("cluster", "add", "lab")
    site.ok("service", "add", "db", "--address", "10.5.0.1", "--cluster", "lab")
    refused = site("cluster", "remove", "lab")
    assert refused.code == 2
    assert "services: 1, mappings: 0" in refused.err
    site.ok("cluster", "remove", "lab", "--yes")
    assert [row["name"] for row in site.ok("cluster", "list", "--output", "json").json] == ["default"]
    assert site("service", "list", "--cluster", "lab").code == 3


def test_what_is_not_possible_has_its_code(site: Console) -> None:
    assert site("cluster", "add", "default").code == 4
    assert site("cluster", "add", "two words").code == 5
    assert site("cluster", "remove", "default", "--yes").code == 4
    assert site("cluster", "remove", "nowhere", "--yes").code == 3
    assert site("cluster", "show", "nowhere").code == 3
    assert site("cluster", "rotate-key", "nowhere").code == 3
