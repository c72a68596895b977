"""`--confirm SECONDS`: what was changed goes back unless `marchproxy confirm` follows in time.

The daemon takes it back (`dataplane/probation.py`); here somebody only watches. Whatever becomes of the
watcher (a lost session, Ctrl-C, kill -9), the deadline stands.
"""

import time
from math import ceil
from typing import TYPE_CHECKING

from marchproxy.cli import intent
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, warn
from marchproxy.client.control import Control
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError

if TYPE_CHECKING:
    from marchproxy.store.store import Store

LOOK = 0.25
"""Seconds between two looks at the store."""
PATIENCE = 30.0
"""Seconds that the daemon may take to go back once it is time."""


def demand_daemon(environment: Environment) -> None:
    """Raise `DaemonNotRunning` unless one runs: without it nobody would take the change back."""
    try:
        Control(environment).get("/v1/status")
    except DaemonNotRunning as error:
        message = f"--confirm needs a running daemon, which takes the change back: {error.message}"
        raise DaemonNotRunning(message, hint=error.hint) from None


def nobody_takes_back() -> DaemonNotRunning:
    """What to raise where the daemon has gone since `demand_daemon`."""
    message = "no daemon runs any more: the change goes back when one starts after the deadline"
    return DaemonNotRunning(message, hint="start it with: marchproxy run")


def watch_trial(environment: Environment) -> ExitCode:
    """Count down until the revision on trial is confirmed, which is exit code 0, or back, which is 1."""
    number = environment.on_trial
    if number is None:
        return ExitCode.DONE
    environment.note(
        f"revision {number} goes back to {number - 1} in {environment.trial} s, unless: marchproxy confirm"
    )
    if not environment.waits:
        return ExitCode.DONE
    with intent.opened(environment, read_only=True) as store:
        try:
            _count_down(environment, store, number)
        except KeyboardInterrupt:
            environment.note("the deadline stands: marchproxy confirm keeps the change")
            raise
        return _tell_end(environment, store, number)


def _count_down(environment: Environment, store: "Store", number: int) -> None:
    from marchproxy.store.trial import Moment

    shown, due = 0, None
    while (trial := store.trial()) and trial.revision == number:
        left = min(ceil(trial.remaining(Moment.now())), trial.seconds)
        if left != shown:
            shown = left
            _show(environment, f"{left} s left")
        if not left:
            due = due or time.monotonic()
            _expect_return(environment, number, time.monotonic() - due)
        time.sleep(LOOK)
    _show(environment, "")


def _show(environment: Environment, text: str) -> None:
    """One line in place, where somebody looks."""
    if environment.stderr.isatty():
        environment.stderr.write(f"\r\x1b[K{text}")
        environment.stderr.flush()


def _expect_return(environment: Environment, number: int, waited: float) -> None:
    """Raise once nobody is there to take it back, or nobody manages to."""
    try:
        Control(environment).get("/v1/status")
    except DaemonNotRunning:
        _show(environment, "")
        raise nobody_takes_back() from None
    if waited > PATIENCE:
        _show(environment, "")
        message = f"revision {number} is due to go back, and has not"
        raise MarchproxyError(message, hint="marchproxy status says why")


def _tell_end(environment: Environment, store: "Store", number: int) -> ExitCode:
    before = store.revision(number - 1).sha256
    later = [revision for revision in store.revisions() if revision.number == number + 1]
    if not later or later[0].sha256 != before:
        environment.note(f"revision {number} is confirmed")
        return ExitCode.DONE
    warn(environment, f"revision {number} was not confirmed: back to revision {number - 1}")
    return ExitCode.FAILED
