"""The way to the store: reading what is configured, changing it in one revision, telling the daemon."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import Declined, ExitCode, WrongUsage, warn
from marchproxy.client.writing import make_revision
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.policy.plan import Finding
    from marchproxy.store.revision import Revision
    from marchproxy.store.store import Store

_SHOWN = 5
"""Warnings that a person is shown."""


@contextmanager
def opened(environment: Environment, *, create: bool = False, read_only: bool = False) -> "Iterator[Store]":
    """The store of this appliance; it is imported here and not before."""
    from marchproxy.store.store import Store

    if environment.trial is not None and not read_only:
        from marchproxy.cli.trial import demand_daemon

        demand_daemon(environment)
    with Store.open(environment.state_dir, create=create, read_only=read_only) as store:
        environment.debug(f"opened the store for {'reading' if read_only else 'writing'}")
        yield store


def read(environment: Environment) -> Snapshot:
    """What is configured now."""
    with opened(environment, read_only=True) as store:
        return store.snapshot()


def write(
    environment: Environment,
    message: str,
    build: Callable[[Snapshot], Snapshot],
    then: "Callable[[Store], None] | None" = None,
) -> ExitCode:
    """Make one revision and have a running daemon take it over; `then` adds what no revision holds."""
    with opened(environment) as store:
        commit(environment, store, message, build)
        if then is not None:
            then(store)
    return announce(environment)


def commit(
    environment: Environment,
    store: "Store",
    message: str,
    build: Callable[[Snapshot], Snapshot],
    *,
    contents: Sequence[bytes] = (),
) -> "Revision":
    """Make one revision of what `build` does to the snapshot, and say its number.

    `contents` are those of block lists that it brings.

    `build` runs inside the store's transaction, so what it checks still holds when its result is written.
    """
    made = make_revision(environment, store, message, build, trial=environment.trial, contents=contents)
    show_warnings(environment, made.warnings)
    tell(environment, made.revision, made.changed)
    return made.revision


def tell(environment: Environment, revision: "Revision", changed: bool) -> None:
    """Say which revision there is now, and remember one that is on trial."""
    if changed and environment.trial is not None:
        environment.on_trial = revision.number
    number = revision.number
    environment.note(f"revision {number}" if changed else f"nothing to change: revision {number} stays")


def announce(environment: Environment) -> ExitCode:
    """Tell a running daemon to take over the store's revision. The write stands whatever it answers.

    With `--confirm` this stays until the revision is confirmed or back.
    """
    from marchproxy.client.control import Control

    try:
        answer = Control(environment).post("/v1/reload")
    except DaemonNotRunning:
        if environment.trial is not None:
            from marchproxy.cli.trial import nobody_takes_back

            raise nobody_takes_back() from None
        environment.detail("no daemon runs here: it takes the revision over when it starts")
        return ExitCode.DONE
    except MarchproxyError as error:
        warn(environment, f"stored, but not in force: {error.message}", error.hint)
        return ExitCode.FAILED
    environment.detail(f"the daemon has taken over revision {answer.get('revision')}")
    if environment.trial is not None:
        from marchproxy.cli.trial import watch_trial

        return watch_trial(environment)
    return ExitCode.DONE


def confirm(environment: Environment, question: str, yes: bool) -> None:
    """Ask before something is lost. Raises `Declined`, or `WrongUsage` where nobody can answer."""
    if yes:
        return
    if not environment.interactive:
        raise WrongUsage(f"{question}: this needs a yes", hint="add --yes to do it from a script")
    environment.stderr.write(f"{question}? [y/N] ")
    environment.stderr.flush()
    if environment.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("nothing was changed")


def show_warnings(environment: Environment, warnings: Sequence["Finding"]) -> None:
    """Say what was written although it may not be what was meant."""
    for finding in warnings[:_SHOWN]:
        warn(environment, f"{finding.subject}: {finding.message}", finding.hint)
    if len(warnings) > _SHOWN:
        warn(environment, f"{len(warnings) - _SHOWN} more like these", "marchproxy check lists them")
