"""The way to the store: reading what is configured, changing it in one revision, telling the daemon."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import Declined, ExitCode, WrongUsage, warn
from marchproxy.cli.mistakes import review, show_warnings
from marchproxy.model.change import OF_APPLIANCE, Change, Kind, held, patch
from marchproxy.model.documents import Document, Entity, to_document
from marchproxy.model.errors import Conflict, DaemonNotRunning, MarchproxyError, NotFound
from marchproxy.model.snapshot import Cluster, Snapshot

if TYPE_CHECKING:
    from marchproxy.policy.plan import Finding
    from marchproxy.store.revision import Revision
    from marchproxy.store.store import Store


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


def cluster_of(snapshot: Snapshot, name: str) -> Cluster:
    """The cluster, or `NotFound`."""
    cluster = snapshot.cluster(name)
    if cluster is None:
        raise NotFound("cluster", name, hint=_names("clusters", snapshot.clusters))
    return cluster


def entities(snapshot: Snapshot, kind: Kind, cluster: str) -> tuple[Entity, ...]:
    """All entities of a kind that a cluster has, or the appliance."""
    return held(snapshot if kind in OF_APPLIANCE else cluster_of(snapshot, cluster), kind)


def find(snapshot: Snapshot, kind: Kind, cluster: str, name: str) -> Entity:
    """One entity by name, or `NotFound`."""
    among = entities(snapshot, kind, cluster)
    found = next((entity for entity in among if entity.name == name), None)
    if found is None:
        raise NotFound(kind.label, name, hint=_names(f"{kind.label}s", among))
    return found


def put(snapshot: Snapshot, kind: Kind, cluster: str, entity: Entity) -> Snapshot:
    """The snapshot with one more entity; `Conflict` where the name is taken."""
    if any(other.name == entity.name for other in entities(snapshot, kind, cluster)):
        noun = kind.partition("_")[0]
        hint = f"marchproxy {noun} list shows it"
        raise Conflict(f"{kind.label} {entity.name!r} exists already", hint=hint)
    return _patched(snapshot, kind, cluster, None, entity)


def swap(snapshot: Snapshot, kind: Kind, cluster: str, entity: Entity) -> Snapshot:
    """The snapshot with the entity in place of the one of that name."""
    return _patched(snapshot, kind, cluster, find(snapshot, kind, cluster, entity.name), entity)


def drop(snapshot: Snapshot, kind: Kind, cluster: str, name: str) -> Snapshot:
    """The snapshot without the entity."""
    return _patched(snapshot, kind, cluster, find(snapshot, kind, cluster, name), None)


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
    changed = False
    warnings: list[Finding] = []

    def careful(snapshot: Snapshot) -> Snapshot:
        nonlocal changed
        wanted = build(snapshot)
        warnings.extend(review(snapshot, wanted, environment.management_ports))
        changed = wanted != snapshot
        return wanted

    revision = store.replace(careful, message=message, trial=environment.trial, contents=contents)
    show_warnings(environment, warnings)
    tell(environment, revision, changed)
    return revision


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
    from marchproxy.cli.control import Control

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


def _patched(
    snapshot: Snapshot, kind: Kind, cluster: str, before: Entity | None, after: Entity | None
) -> Snapshot:
    name = cast("Entity", after or before).name
    owner = "" if kind in OF_APPLIANCE else cluster
    return patch(snapshot, [Change(kind, owner, name, _document(before), _document(after))])


def _document(entity: Entity | None) -> Document | None:
    return None if entity is None else to_document(entity)


def _names(what: str, among: tuple[Any, ...]) -> str:
    """A hint that lists what there is, while that is short enough to read."""
    names = [item.name for item in among]
    if not names:
        return f"there are no {what} yet"
    shown = ", ".join(names[:10])
    return f"{what}: {shown}" + (f" and {len(names) - 10} more" if len(names) > 10 else "")
