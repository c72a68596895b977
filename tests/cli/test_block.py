"""`marchproxy block`, as an operator uses it."""

import json

import pytest
import yaml

from tests.cli.console import Console

DROP = "203.0.113.0/24 ; SBL1\n2001:db8:bad::/48\nads.example\n"


def test_entry_is_added_listed_checked_and_removed(site: Console) -> None:
    words = ("203.0.113.0/24", "--reason", "scans us", "--ttl", "1h")
    added = site.ok("block", "add", *words, "--output", "json").json
    assert (added["name"], added["reason"]) == ("203.0.113.0/24", "scans us")
    assert added["origin"]
    (listed,) = site.ok("block", "list", "--output", "json").json
    assert listed == added | {"kind": "entry", "entries": 1}
    answer = site("block", "check", "203.0.113.9", "--output", "json")
    assert (answer.code, answer.json["blocked"], answer.json["by"]) == (10, True, "203.0.113.0/24")
    assert answer.json["expires"] == added["expires"]
    assert site("block", "check", "198.51.100.1").code == 0
    site.ok("block", "remove", "203.0.113.0/24", "--yes")
    assert site.ok("block", "list", "--output", "json").json == []


def test_names_are_blocked_with_what_is_below_wildcards(site: Console) -> None:
    site.ok("block", "add", "*.Ads.Example.")
    found = site("block", "check", "www.ads.example")
    assert (found.code, found.out) == (10, "www.ads.example is blocked by *.ads.example\n")
    assert site("block", "check", "ads.example").code == 0


def test_list_is_imported_and_replaced_as_a_whole(site: Console) -> None:
    first = site.ok("block", "import", "-", "--name", "drop", "--output", "json", stdin=DROP).json
    assert (first["name"], first["entries"], first["read"], first["bad_lines"]) == ("drop", 3, 3, 0)
    assert site("block", "check", "2001:db8:bad::1", "--output", "json").json["kind"] == "list"
    site.ok("block", "import", "-", "--name", "drop", "--reason", "again", stdin="198.51.100.7\n")
    (held,) = site.ok("block", "list", "--output", "json").json
    assert (held["kind"], held["entries"], held["reason"], held["origin"]) == ("list", 1, "again", "stdin")
    assert site("block", "check", "203.0.113.9").code == 0
    assert site("block", "check", "198.51.100.7").code == 10


def test_rollback_brings_back_what_a_list_held(site: Console) -> None:
    site.ok("block", "import", "-", "--name", "drop", stdin=DROP)
    number = site.ok("revision", "list", "--output", "json").json[0]["number"]
    site.ok("block", "remove", "drop", "--yes")
    assert site("block", "check", "203.0.113.9").code == 0
    site.ok("revision", "rollback", str(number), "--yes")
    assert site("block", "check", "203.0.113.9").code == 10


def test_export_of_lists_can_be_applied_where_their_contents_are(site: Console) -> None:
    site.ok("block", "import", "-", "--name", "drop", stdin=DROP)
    exported = site.ok("export").out
    site.ok("block", "remove", "drop", "--yes")
    site.ok("apply", "-f", "-", "--yes", stdin=exported)
    assert site("block", "check", "203.0.113.9").code == 10
    stranger = exported.replace(json.loads(exported)["block_lists"][0]["sha256"], "0" * 64)
    refused = site("apply", "-f", "-", "--yes", stdin=stranger)
    assert refused.code == 3
    assert "block import" in refused.err


def test_entries_of_a_list(site: Console) -> None:
    lines = "".join(f"10.{number // 256}.{number % 256}.1\n" for number in range(300))
    site.ok("block", "import", "-", "--name", "many", stdin=lines)
    table = site.ok("block", "list", "--list", "many")
    assert len(table.out.splitlines()) == 101
    assert table.err == "200 more: --limit shows them, --output json has all\n"
    assert len(site.ok("block", "list", "--list", "many", "--limit", "7").out.splitlines()) == 8
    every = site.ok("block", "list", "--list", "many", "--output", "json").json
    assert (len(every), every[0]) == (300, {"name": "10.0.0.1", "reason": "", "expires": None})
    assert yaml.safe_load(site.ok("block", "list", "--list", "many", "--output", "yaml").out) == every
    assert site.ok("block", "list", "--list", "many", "--limit", "2", "--output", "json").json == every[:2]
    assert site("block", "list", "--list", "nothing").code == 3


def test_list_of_nothing(site: Console) -> None:
    site.ok("block", "import", "-", "--name", "empty", stdin="# nothing today\n")
    assert site.ok("block", "list", "--list", "empty", "--output", "json").json == []
    assert yaml.safe_load(site.ok("block", "list", "--list", "empty", "--output", "yaml").out) == []


def test_bad_lines_are_named_and_the_good_ones_kept(site: Console) -> None:
    found = site.ok("block", "import", "-", "--name", "x", stdin="10.9.0.1\nrubbish here\n10.9.0.2\n")
    assert "line 2: 'rubbish here' is left out" in found.err
    assert site("block", "check", "10.9.0.2").code == 10


def test_strict_keeps_nothing_of_a_file_with_a_bad_line(site: Console) -> None:
    site.ok("block", "import", "-", "--name", "x", stdin="10.9.0.1\n")
    refused = site("block", "import", "-", "--name", "x", "--strict", stdin="10.9.0.5\nrubbish here\n")
    assert refused.code == 5
    assert "line 2" in refused.err
    assert (site("block", "check", "10.9.0.1").code, site("block", "check", "10.9.0.5").code) == (10, 0)


def test_entries_that_their_file_lets_expire(site: Console) -> None:
    text = "ip,reason,expires\n10.9.0.1,over,2020-01-01T00:00:00Z\n10.9.0.2,stays,2999-01-01T00:00:00Z\n"
    told = site.ok("block", "import", "-", "--name", "x", "--output", "json", stdin=text).json
    assert (told["expired"], told["entries"]) == (1, 1)
    (entry,) = site.ok("block", "list", "--list", "x", "--output", "json").json
    assert entry == {"name": "10.9.0.2", "reason": "stays", "expires": "2999-01-01T00:00:00Z"}


@pytest.mark.parametrize("entry", ["127.0.0.0/8", "0.0.0.0/0", "::/0", "198.51.100.0/24"])
def test_the_way_of_the_operator_is_not_blocked_without_force(site: Console, entry: str) -> None:
    site.variables["SSH_CONNECTION"] = "198.51.100.7 50000 192.0.2.1 22"
    refused = site("block", "add", entry)
    assert refused.code == 4
    assert "this would cut" in refused.err
    imported = site("block", "import", "-", "--name", "x", stdin=f"192.0.2.0/24\n{entry}\n")
    assert imported.code == 4
    assert site.ok("block", "list", "--output", "json").json == []
    site.ok("block", "add", entry, "--force")
    site.ok("block", "import", "-", "--name", "x", "--force", stdin=f"{entry}\n")
    assert len(site.ok("block", "list", "--output", "json").json) == 2


def test_a_file_does_not_block_the_way_of_the_operator_without_force(site: Console) -> None:
    site.ok("block", "add", "127.0.0.2", "--force")
    site.ok("block", "import", "-", "--name", "x", "--force", stdin="127.0.0.0/8\n")
    exported = site.ok("export").out
    site.ok("apply", "-f", "-", "--yes", stdin=exported)
    site.ok("block", "remove", "x", "--yes")
    for more in (["--yes"], ["--dry-run"]):
        refused = site("apply", "-f", "-", *more, stdin=exported)
        assert refused.code == 4
        assert "this would cut 127.0.0.1 (loopback, by x)" in refused.err
    assert len(site.ok("block", "list", "--output", "json").json) == 1
    site.ok("apply", "-f", "-", "--yes", "--force", stdin=exported)
    assert len(site.ok("block", "list", "--output", "json").json) == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["add"], 2),
        (["add", "10.0.0.1/8"], 5),
        (["add", "10.0.0.300"], 5),
        (["add", "203.0.113.1", "--ttl", "soon"], 5),
        (["add", "203.0.113.1", "--ttl", "0"], 2),
        (["import", "/no/such/file"], 3),
        (["import", "-"], 2),
        (["import", "-", "--name", "a name"], 5),
        (["remove", "203.0.113.1", "--yes"], 3),
        (["check", "203.0.113.0/24"], 5),
        (["list", "--limit", "-1"], 2),
    ],
)
def test_what_cannot_be_meant_is_refused(site: Console, words: list[str], code: int) -> None:
    before = site.ok("export").out
    assert site("block", *words, stdin="203.0.113.1\n").code == code
    assert site.ok("export").out == before


def test_the_same_entry_twice_is_a_conflict(site: Console) -> None:
    site.ok("block", "add", "203.0.113.1")
    again = site("block", "add", "203.0.113.1/32")
    assert again.code == 4
    assert "marchproxy block list" in again.err


def test_removing_asks_first(site: Console) -> None:
    site.ok("block", "add", "203.0.113.1")
    assert site("block", "remove", "203.0.113.1").code == 2
    assert len(site.ok("block", "list", "--output", "json").json) == 1


def test_explain_tells_what_blocks(site: Console) -> None:
    site.ok("block", "import", "-", "--name", "drop", stdin="10.1.9.0/24\n")
    told = site("explain", "--from", "10.1.9.4", "--to", "10.1.0.1", "--port", "80", "--output", "json")
    assert (told.code, told.json["reason"], told.json["mapping"]) == (10, "BLOCKED_SOURCE", "block-list:drop")
