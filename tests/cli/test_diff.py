"""`marchproxy diff`."""

from collections.abc import Callable

from tests.cli.console import STATUS, Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]


def test_a_file_against_the_store(site: Console) -> None:
    before = site.ok("export").out
    file = site.write("site.yaml", "services: [{name: clients, addresses: [10.1.0.0/16]}]\n")
    rows = site.ok("diff", "-f", file, "--output", "json").json
    assert [(row["action"], row["kind"], row["name"]) for row in rows] == [
        ("remove", "service", "web"),
        ("remove", "mapping", "cw"),
    ]
    assert site.ok("export").out == before
    assert site.ok("diff", "-f", "-", "--output", "json", stdin=before).json == []


def test_what_the_daemon_has_not_taken_over(site: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, STATUS | {"revision": {**STATUS["revision"], "number": 1}})})
    assert len(site.ok("diff", "--output", "json").json) == 3


def test_a_daemon_that_is_up_to_date(site: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, STATUS | {"revision": {**STATUS["revision"], "number": 2}})})
    result = site.ok("diff")
    assert (result.out, result.err) == ("", "no difference\n")


def test_a_daemon_that_has_taken_nothing_over_yet(site: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, STATUS | {"revision": {**STATUS["revision"], "number": 0}})})
    assert site.ok("diff", "--output", "json").json[0]["kind"] == "cluster"


def test_codes(site: Console) -> None:
    assert site("diff").code == 6
    assert site("diff", "-f", "missing.yaml").code == 3
    assert site("diff", "-f", str(site.folder)).code == 5
