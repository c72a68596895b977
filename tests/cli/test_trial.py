"""`--confirm SECONDS`, from the watcher's side."""

from collections.abc import Callable

import pytest

from marchproxy.cli import trial as module
from marchproxy.cli.framework import CHANGING
from marchproxy.cli.main import run
from marchproxy.store.store import Store
from tests.cli.commands import commands
from tests.cli.console import STATUS, Answers, Console, Daemon

type Start = Callable[[Answers], Daemon]
type Meanwhile = Callable[[Callable[[Store], object]], None]

RUNNING: Answers = {"GET /v1/status": (200, STATUS), "POST /v1/reload": (200, {"revision": 3})}
ADD = ("service", "add", "api", "--address", "10.3.0.1")


@pytest.fixture
def meanwhile(site: Console, monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has somebody else do something while the watcher sleeps for the first time."""

    def arrange(act: Callable[[Store], object]) -> None:
        acts = [act]

        def sleep(_: float) -> None:
            if acts:
                with Store.open(site.folder / "state") as store:
                    acts.pop()(store)

        monkeypatch.setattr("time.sleep", sleep)

    return arrange


def go_back(store: Store) -> None:
    """The time is over, and the daemon does its work."""
    trial = store.trial()
    assert trial is not None
    store.revert(trial)


def let_pass(store: Store) -> None:
    """The time is over, and the daemon does nothing."""
    store._database.query("UPDATE trial SET uptime = 1")


def test_confirmed_elsewhere_it_is_done(site: Console, daemon: Start, meanwhile: Meanwhile) -> None:
    daemon(RUNNING)
    meanwhile(Store.confirm)
    result = site.ok(*ADD, "--confirm", "60")
    assert result.err.splitlines() == [
        "revision 3",
        "revision 3 goes back to 2 in 60 s, unless: marchproxy confirm",
        "revision 3 is confirmed",
    ]


def test_gone_back_it_has_failed(site: Console, daemon: Start, meanwhile: Meanwhile) -> None:
    daemon(RUNNING)
    meanwhile(go_back)
    result = site(*ADD, "--confirm", "60")
    assert result.code == 1
    assert result.err.splitlines()[-1] == "warning: revision 3 was not confirmed: back to revision 2"
    assert [row["name"] for row in site.ok("service", "list", "--output", "json").json] == ["clients", "web"]


def test_a_terminal_shows_the_seconds(site: Console, daemon: Start, meanwhile: Meanwhile) -> None:
    daemon(RUNNING)
    meanwhile(Store.confirm)
    environment = site.environment(tty=True)
    assert run([*ADD, "--confirm", "60"], environment) == 0
    assert "\r\x1b[K60 s left" in environment.stderr.getvalue()  # type: ignore[attr-defined]


def test_who_does_not_wait_returns_at_once(site: Console, daemon: Start) -> None:
    daemon(RUNNING)
    assert "goes back" in site.ok(*ADD, "--confirm", "60", "--no-wait").err
    with Store.open(site.folder / "state", read_only=True) as store:
        trial = store.trial()
    assert trial is not None
    assert (trial.revision, trial.previous) == (3, 2)


def test_without_a_daemon_nothing_is_written(site: Console) -> None:
    result = site(*ADD, "--confirm", "60")
    assert result.code == 6
    assert "--confirm needs a running daemon" in result.err
    with Store.open(site.folder / "state", read_only=True) as store:
        assert store.head().number == 2


def test_a_second_change_is_a_conflict(site: Console, daemon: Start) -> None:
    daemon(RUNNING)
    site.ok(*ADD, "--confirm", "60", "--no-wait")
    for words in (("service", "add", "b", "--address", "10.3.0.2"), ("revision", "rollback", "1", "--yes")):
        for more in ((), ("--confirm", "60")):
            result = site(*words, *more)
            assert result.code == 4
            assert "revision 3 waits to be confirmed" in result.err
    site.ok("revision", "rollback", "2", "--yes")
    site.ok("service", "add", "b", "--address", "10.3.0.2")


def test_a_rollback_can_be_on_trial(site: Console, daemon: Start, meanwhile: Meanwhile) -> None:
    daemon(RUNNING)
    meanwhile(go_back)
    assert site("revision", "rollback", "1", "--yes", "--confirm", "60").code == 1
    assert len(site.ok("service", "list", "--output", "json").json) == 2


def test_what_changes_nothing_is_not_waited_for(site: Console, daemon: Start) -> None:
    daemon(RUNNING)
    assert site.ok("service", "set", "web", "--port", "8080", "--confirm", "60").err == (
        "nothing to change: revision 2 stays\n"
    )


def test_ctrl_c_leaves_the_deadline(site: Console, daemon: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon(RUNNING)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    result = site(*ADD, "--confirm", "60")
    assert result.code == 130
    assert "the deadline stands" in result.err
    with Store.open(site.folder / "state", read_only=True) as store:
        assert store.trial() is not None


def test_a_daemon_that_died_is_noticed(site: Console, meanwhile: Meanwhile) -> None:
    with Daemon(site.control_socket, RUNNING) as server:

        def die(store: Store) -> None:
            server.hang_up()
            let_pass(store)

        meanwhile(die)
        result = site(*ADD, "--confirm", "60")
    assert result.code == 6
    assert "the change goes back when one starts" in result.err


def test_a_daemon_that_cannot_is_not_waited_for(
    site: Console, daemon: Start, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon(RUNNING)
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    meanwhile(let_pass)
    result = site(*ADD, "--confirm", "60")
    assert result.code == 1
    assert "is due to go back, and has not" in result.err


@pytest.mark.parametrize("seconds", ["0", "-1", "86401", "soon"])
def test_times_that_cannot_be_meant(site: Console, seconds: str) -> None:
    assert site(*ADD, "--confirm", seconds).code == 2


def test_every_command_that_writes_a_revision_takes_it() -> None:
    takes = {
        words for words, command in commands() if any("--confirm" in param.opts for param in command.params)
    }
    assert takes >= {"apply", "service add", "mapping set", "interface remove", "revision rollback"}
    assert {words.split()[-1] for words in takes} <= CHANGING
