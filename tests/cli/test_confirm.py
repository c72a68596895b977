"""`marchproxy confirm`."""

from collections.abc import Callable

from marchproxy.store.store import Store
from tests.cli.console import STATUS, Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]

RUNNING: Answers = {"GET /v1/status": (200, STATUS), "POST /v1/reload": (200, {"revision": 3})}
ADD = ("service", "add", "api", "--address", "10.3.0.1", "--confirm", "60", "--no-wait")


def test_it_stays(site: Console, daemon: Start) -> None:
    server = daemon(RUNNING)
    site.ok(*ADD)
    result = site.ok("confirm")
    assert (result.out, result.err) == ("", "revision 3 is confirmed\n")
    assert [asked for asked, _ in server.asked].count("POST /v1/reload") == 2, "the daemon learns of it"
    with Store.open(site.folder / "state", read_only=True) as store:
        assert store.trial() is None
        assert store.head().number == 3


def test_nothing_to_confirm_is_3(site: Console) -> None:
    result = site("confirm")
    assert (result.code, result.err) == (3, "error: nothing waits to be confirmed\n")


def test_too_late_is_4(site: Console, daemon: Start) -> None:
    daemon(RUNNING)
    site.ok(*ADD)
    with Store.open(site.folder / "state") as store:
        store._database.query("UPDATE trial SET uptime = 1")
    result = site("confirm")
    assert result.code == 4
    assert "the time to confirm revision 3 is over" in result.err


def test_a_daemon_that_is_away_learns_it_when_it_starts(site: Console) -> None:
    with Store.open(site.folder / "state") as store:
        store.rollback(1, trial=60)
    assert site.ok("confirm").err == "revision 3 is confirmed\n"
