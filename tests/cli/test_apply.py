"""`marchproxy apply`, as an operator uses it."""

import json
from typing import Any

import pytest

from marchproxy.cli import intent
from marchproxy.cli.apply import _unless_changed
from marchproxy.model.errors import Conflict
from marchproxy.model.snapshot import Cluster, Snapshot, read_snapshot
from tests.cli.conftest import SITE
from tests.cli.console import Console

SMALLER: dict[str, Any] = {"services": [{"name": "clients", "addresses": ["10.1.0.0/16"]}], "mappings": []}
CHANGED: dict[str, Any] = SITE | {
    "services": [SITE["services"][0], {"name": "web", "addresses": ["10.2.0.9"]}]
}


def test_first_it_adds_then_it_changes_nothing(console: Console) -> None:
    console.ok("init")
    file = console.write("site.json", SITE)
    added = console.ok("apply", "-f", file)
    assert added.out.splitlines()[0] == "+ service clients"
    assert added.err == "revision 2\n"
    again = console.ok("apply", "-f", file)
    assert (again.out, again.err) == ("", "nothing to change: revision 2 stays\n")


def test_what_the_file_omits_is_shown_and_then_removed(site: Console) -> None:
    result = site.ok("apply", "-f", site.write("small.json", SMALLER), "--yes")
    assert [line for line in result.out.splitlines() if line.startswith("-")] == [
        "- service web",
        "- mapping cw",
    ]
    assert [row["name"] for row in site.ok("service", "list", "--output", "json").json] == ["clients"]


@pytest.mark.parametrize("wanted", [SMALLER, CHANGED])
def test_a_script_has_to_say_yes_to_losses(site: Console, wanted: dict[str, Any]) -> None:
    before = site.ok("export").out
    result = site("apply", "-f", site.write("wanted.json", wanted))
    assert result.code == 2
    assert result.out != ""
    assert "--yes" in result.err
    assert site.ok("export").out == before


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_somebody_at_a_terminal_is_asked(site: Console, typed: str, code: int) -> None:
    before = site.ok("export").out
    result = site("apply", "-f", site.write("small.json", SMALLER), stdin=typed, tty=True)
    assert result.code == code
    assert "1 changed" not in result.err
    assert "2 removed? [y/N]" in result.err
    assert (site.ok("export").out == before) == (code != 0)


def test_dry_run_shows_and_changes_nothing(site: Console) -> None:
    before = site.ok("export").out
    result = site.ok("apply", "-f", site.write("small.json", SMALLER), "--dry-run")
    assert "- service web" in result.out
    assert site.ok("export").out == before
    assert site.ok("revision", "list", "--output", "json").json[0]["number"] == 2


def test_document_has_revision_and_changes(site: Console) -> None:
    file = site.write("changed.json", CHANGED)
    planned = site.ok("apply", "-f", file, "--dry-run", "--output", "json").json
    done = site.ok("apply", "-f", file, "--yes", "--output", "json").json
    assert planned == done | {"revision": None, "cuts": None}
    assert done["revision"] == 3
    assert done["changes"] == [
        {
            "action": "change",
            "kind": "service",
            "cluster": "default",
            "name": "web",
            "before": {"name": "web", "addresses": ["10.2.0.10", "10.2.0.11"], "port": 8080},
            "after": {"name": "web", "addresses": ["10.2.0.9"]},
        }
    ]


def test_export_comes_back_unchanged_in_every_form(site: Console) -> None:
    site.ok("interface", "add", "eth0", "--role", "inside")
    site.ok("cluster", "add", "lab")
    before = site.ok("export").out
    for words in (["export"], ["export", "--output", "yaml"], ["export", "--cluster", "default"]):
        result = site.ok("apply", "-f", "-", stdin=site.ok(*words).out)
        assert "nothing to change" in result.err
        assert site.ok("export").out == before


def test_the_message_is_the_operators_or_the_files_name(site: Console) -> None:
    site.ok("apply", "-f", site.write("a.json", CHANGED), "--yes", "--message", "the new web server")
    site.ok("apply", "-f", site.write("b\n.json", SITE), "--yes")
    site.ok("apply", "-f", "-", "--yes", stdin=json.dumps(SMALLER))
    messages = [row["message"] for row in site.ok("revision", "list", "--output", "json").json]
    assert messages[:3] == ["apply stdin", "apply b\\n.json", "the new web server"]


@pytest.mark.parametrize(
    ("mistake", "code", "says"),
    [
        ({"destinations": ["nobody"]}, 3, "'nobody'"),
        ({"listen": "*:22"}, 5, "management"),
        ({"listen": "*"}, 5, 'mapping "cw": listen'),
        ({"colour": "red"}, 5, "'colour'"),
    ],
)
def test_a_mistake_anywhere_keeps_everything_as_it_is(
    site: Console, mistake: dict[str, Any], code: int, says: str
) -> None:
    before = site.ok("export").out
    wanted = CHANGED | {"mappings": [SITE["mappings"][0] | mistake]}
    for words in (["--yes"], ["--dry-run"]):
        result = site("apply", "-f", site.write("wrong.json", wanted), *words)
        assert result.code == code
        assert says in result.err
    assert site.ok("export").out == before


def test_an_earlier_mistake_does_not_keep_one_from_changing_something_else(site: Console) -> None:
    """Policies that a later version finds fault with are still there after an upgrade."""
    with intent.opened(site.environment()) as store:
        flawed = SITE["mappings"][0] | {"name": "ssh", "listen": "*:22"}
        document = json.loads(store.snapshot().canonical())
        document["clusters"][0]["mappings"].append(flawed)
        store.replace(lambda _: read_snapshot(document), message="by an older version")
    site.ok("service", "add", "db", "--address", "10.4.0.1")
    assert site("mapping", "set", "ssh", "--listen", "*:23").code == 0
    assert site("mapping", "set", "ssh", "--listen", "*:22").code == 5


def test_what_was_agreed_to_is_what_is_written() -> None:
    before, after = Snapshot(), Snapshot((Cluster("default"), Cluster("lab")))
    build = _unless_changed(before, after)
    assert build(Snapshot()) is after
    with pytest.raises(Conflict, match="meanwhile"):
        build(Snapshot((Cluster("default"), Cluster("other"))))
