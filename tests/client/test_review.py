"""Mistakes found before they are written."""

from typing import Any

import pytest

from marchproxy.cli.intent import show_warnings
from marchproxy.client.errors import InvalidPolicy
from marchproxy.client.review import review
from marchproxy.model.errors import Conflict, NotFound
from marchproxy.model.snapshot import Snapshot, read_snapshot
from tests.cli.console import Console, Screen

CLIENTS = {"name": "clients", "addresses": ["10.1.0.0/16"]}
WEB = {"name": "web", "addresses": ["10.2.0.1"], "collection": "front"}
CW = {
    "name": "cw",
    "sources": ["clients"],
    "destinations": ["web"],
    "protocols": ["tcp"],
    "listen": "10.1.0.1:80",
}
FRONT = CW | {"name": "front", "destinations": ["collection:front"], "listen": "10.1.0.1:81"}
SSH = CW | {"name": "ssh", "listen": "10.1.0.1:22"}


def snapshot(services: list[dict[str, Any]], mappings: list[dict[str, Any]]) -> Snapshot:
    return read_snapshot(
        {
            "format": "marchproxy/1",
            "clusters": [{"name": "default", "services": services, "mappings": mappings}],
        }
    )


BEFORE = snapshot([CLIENTS, WEB], [CW, FRONT])


@pytest.mark.parametrize(
    ("after", "error", "says"),
    [
        (snapshot([CLIENTS, WEB], [CW, SSH]), InvalidPolicy, "mapping ssh"),
        (
            snapshot([CLIENTS, WEB | {"addresses": ["10.2.0.0/24"]}], [CW]),
            InvalidPolicy,
            "mapping cw",
        ),
        (
            snapshot([CLIENTS, WEB | {"addresses": ["10.2.0.0/24"]}], [FRONT]),
            InvalidPolicy,
            "mapping front",
        ),
        (snapshot([CLIENTS], [CW]), Conflict, "'web' is in use"),
        (snapshot([CLIENTS, WEB], [CW | {"sources": ["nobody"]}]), NotFound, "'nobody'"),
    ],
)
def test_new_mistakes_are_refused(after: Snapshot, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        review(BEFORE, after)


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        snapshot([CLIENTS, WEB], []),
        snapshot([CLIENTS, WEB | {"addresses": ["10.2.0.2"]}], [CW, FRONT]),
        snapshot([CLIENTS, WEB | {"addresses": ["db.example.com"]}], [CW, FRONT]),
        snapshot([CLIENTS, WEB, {"name": "net", "addresses": ["10.0.0.0/8"]}], [CW, FRONT]),
    ],
)
def test_what_is_right_passes_without_a_word(after: Snapshot) -> None:
    assert review(BEFORE, after) == []


def test_new_warnings_are_returned_and_old_ones_not() -> None:
    silent = CW | {"name": "silent", "expires": "2020-01-01T00:00:00Z"}
    after = snapshot([CLIENTS, WEB], [CW, FRONT, silent])
    assert [finding.subject for finding in review(BEFORE, after)] == ["mapping silent"]
    assert review(after, snapshot([CLIENTS, WEB | {"port": 5}], [CW, FRONT, silent])) == []


def test_warnings_are_told_and_a_flood_is_cut(console: Console) -> None:
    many = [CW | {"name": f"m{number}", "auth_required": True} for number in range(7)]
    warnings = review(BEFORE, snapshot([CLIENTS, WEB], [CW, FRONT, *many]))
    environment = console.environment()
    show_warnings(environment, warnings)
    assert isinstance(environment.stderr, Screen)
    told = [line for line in environment.stderr.getvalue().splitlines() if line.startswith("warning: ")]
    assert len(told) == 6
    assert told[0].startswith("warning: mapping m0: ")
    assert told[5] == "warning: 2 more like these"


def test_old_mistakes_do_not_keep_anyone_from_other_changes() -> None:
    old = snapshot([CLIENTS, WEB], [SSH])
    review(old, snapshot([CLIENTS, WEB | {"port": 8080}], [SSH, CW]))
    review(old, snapshot([CLIENTS, WEB], [SSH | {"description": "still wrong"}]))
    with pytest.raises(InvalidPolicy, match="other"):
        review(old, snapshot([CLIENTS, WEB], [SSH, SSH | {"name": "other"}]))


def test_many_are_counted() -> None:
    wrong = [SSH | {"name": f"m{number}"} for number in range(9)]
    with pytest.raises(InvalidPolicy, match=r"m0: .*m4: .*and 4 more mistakes") as caught:
        review(BEFORE, snapshot([CLIENTS, WEB], wrong))
    assert "m5" not in caught.value.message


def test_only_what_a_change_touches_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps `service set` quick beside ten thousand mappings."""
    from marchproxy.policy import compile as compiler

    compiled: list[list[str]] = []
    real = compiler.compile_plan

    def spy(snapshot: Snapshot, **settings: Any) -> Any:
        compiled.append([mapping.name for cluster in snapshot.clusters for mapping in cluster.mappings])
        return real(snapshot, **settings)

    monkeypatch.setattr(compiler, "compile_plan", spy)
    review(BEFORE, snapshot([CLIENTS, WEB], [CW | {"priority": 5}, FRONT]))
    assert compiled == [["cw"], ["cw"]]
    compiled.clear()
    review(BEFORE, snapshot([CLIENTS, WEB | {"port": 1}], [CW, FRONT]))
    assert compiled == [["cw", "front"], ["cw", "front"]]
