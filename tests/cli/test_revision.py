"""`marchproxy revision`: history and the way back."""

import re

import pytest

from tests.cli.console import Console


def test_list_is_newest_first_and_limited(site: Console) -> None:
    site.ok("service", "set", "web", "--port", "81")
    rows = site.ok("revision", "list", "--output", "json").json
    assert [(row["number"], row["message"]) for row in rows] == [
        (3, "set service web"),
        (2, "apply stdin"),
        (1, "create the store"),
    ]
    assert all(re.fullmatch(r"[0-9a-f]{64}", row["sha256"]) for row in rows)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["time"]) for row in rows)
    assert all(row["author"] for row in rows)
    assert site.ok("revision", "list", "--limit", "1", "--output", "json").json == rows[:1]
    assert rows[0]["sha256"][:12] in site.ok("revision", "list").out


def test_show_has_what_it_changed(site: Console) -> None:
    site.ok("service", "set", "web", "--port", "81")
    document = site.ok("revision", "show", "3", "--output", "json").json
    assert document["number"] == 3
    assert [(change["action"], change["name"]) for change in document["changes"]] == [("change", "web")]
    assert "    port: 8080 -> 81" in site.ok("revision", "show", "3").out.splitlines()


def test_diff_goes_from_a_to_b(site: Console) -> None:
    site.ok("service", "set", "web", "--port", "81")
    site.ok("service", "set", "web", "--port", "82")
    assert "port: 8080 -> 81" in site.ok("revision", "diff", "2", "3").out
    assert "port: 81 -> 8080" in site.ok("revision", "diff", "3", "2").out
    assert "port: 8080 -> 82" in site.ok("revision", "diff", "2").out
    assert site.ok("revision", "diff", "3", "3", "--output", "json").json == []


def test_rollback_is_a_new_revision_that_equals_the_old(site: Console) -> None:
    before = site.ok("export").out
    site.ok("mapping", "remove", "cw", "--yes")
    site.ok("service", "remove", "web", "--yes")
    result = site.ok("revision", "rollback", "2", "--yes")
    assert result.err == "revision 5\n"
    assert "+ service web" in result.out
    assert site.ok("export").out == before
    site.ok("revision", "rollback", "4", "--yes")
    assert site.ok("service", "list", "--output", "json").json[-1]["name"] == "clients"


def test_rollback_does_not_bring_back_what_cuts_the_operator_off(site: Console) -> None:
    site.ok("block", "add", "127.0.0.0/8", "--force")
    site.ok("block", "remove", "127.0.0.0/8", "--yes")
    refused = site("revision", "rollback", "3", "--yes")
    assert refused.code == 4
    assert "loopback" in refused.err
    assert site.ok("block", "list", "--output", "json").json == []
    site.ok("revision", "rollback", "3", "--yes", "--force")
    assert len(site.ok("block", "list", "--output", "json").json) == 1


def test_rollback_needs_a_yes_from_a_script(site: Console) -> None:
    site.ok("service", "set", "web", "--port", "81")
    result = site("revision", "rollback", "2")
    assert result.code == 2
    assert "--yes" in result.err
    assert site.ok("revision", "list", "--output", "json").json[0]["number"] == 3


@pytest.mark.parametrize("number", ["x", "0", "-1", "1.5", "\u0663", "9" * 5000])
def test_what_is_no_number_is_called_by_its_name(site: Console, number: str) -> None:
    result = site("revision", "rollback", "--", number)
    assert result.code == 2
    assert "is not a number from 1 to" in result.err


def test_rollback_to_what_is_changes_nothing(site: Console) -> None:
    assert site.ok("revision", "rollback", "2").err.endswith("nothing to change: revision 2 stays\n")


def test_rollback_as_a_document(site: Console) -> None:
    site.ok("service", "set", "web", "--port", "81")
    document = site.ok("revision", "rollback", "2", "--yes", "--output", "json").json
    assert (document["number"], document["message"]) == (4, "roll back to revision 2")


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("\n", 1)])
def test_rollback_asks_at_a_terminal(site: Console, typed: str, code: int) -> None:
    assert site("revision", "rollback", "1", stdin=typed, tty=True).code == code
    assert (site.ok("service", "list", "--output", "json").json == []) == (code == 0)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("show 99", 3),
        ("diff 99", 3),
        ("diff 1 99", 3),
        ("rollback 99", 3),
        ("show 0", 2),
        ("rollback -- -1", 2),
        ("show two", 2),
        ("show", 2),
        ("list --limit 0", 2),
        ("show 99999999999999999999999", 2),
        ("list --limit 99999999999999999999999", 2),
    ],
)
def test_codes(site: Console, words: str, code: int) -> None:
    assert site("revision", *words.split()).code == code
