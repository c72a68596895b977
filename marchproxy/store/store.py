"""The store: what an operator meant, how it came about, and the one way to change it."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from marchproxy.model.appliance import Settings
from marchproxy.model.blocklist import BlockContents
from marchproxy.model.change import Change, diff, patch
from marchproxy.model.errors import Conflict
from marchproxy.model.snapshot import Snapshot
from marchproxy.store import keys, reader
from marchproxy.store.acmeaccounts import AcmeAccounts
from marchproxy.store.certificates import Certificates, check_certificates
from marchproxy.store.certificatesources import CertificateSources
from marchproxy.store.contents import check_contents, read_contents, write_contents
from marchproxy.store.credentials import Credentials
from marchproxy.store.database import Database
from marchproxy.store.engines import BUSY_TIMEOUT
from marchproxy.store.errors import StoreCorrupt, StoreMissing
from marchproxy.store.integrity import check_names, check_references
from marchproxy.store.location import create_file, locate
from marchproxy.store.migrations import check_schema, migrate
from marchproxy.store.revision import Revision, current_author
from marchproxy.store.trial import (
    Moment,
    NoTrial,
    Trial,
    end_trial,
    read_trial,
    refuse_during,
    start_trial,
    write_trial,
)
from marchproxy.store.vault import Vault
from marchproxy.store.writer import write_revision

_DAEMON = "marchproxy"
"""Author of what happens by itself."""

type Build = Callable[[Snapshot], Snapshot]


class Store:
    """A store that is open. Any thread may use it, one at a time; close it, or use it in a `with` statement.

    Every method raises `StoreError` or what it names; whatever it raises, the store is as it was before.
    """

    def __init__(self, database: Database, vault: Vault, *, created: bool = False) -> None:
        """Use `open`."""
        self.created = created
        """Whether `open` made this store's first revision just now."""
        self.credentials = Credentials(database, vault)
        self.certificates = Certificates(database, vault, lambda: self._read()[1])
        self.certificate_sources = CertificateSources(database, vault)
        self.acme_accounts = AcmeAccounts(database, vault)
        self._database = database
        self._known: tuple[Revision, Snapshot] | None = None

    @classmethod
    def open(
        cls,
        state_dir: Path | None = None,
        *,
        create: bool = False,
        read_only: bool = False,
        timeout: float = BUSY_TIMEOUT,
    ) -> Self:
        """Open the store in `state_dir`, or where the environment says (`location.locate`).

        `create` makes what is missing: file, schema, cluster `default` and revision 1. `read_only` leaves
        even the migrations of a newer version undone. `timeout` is how many seconds to wait for another
        process's write; servers are given `BUSY_TIMEOUT`.
        """
        if create and read_only:
            raise ValueError("a store that is to be created cannot be read-only")
        location = locate(state_dir)
        if location.path is None:
            from marchproxy.store.server import open_server

            database = open_server(location, read_only=read_only)
        else:
            if create:
                create_file(location.path)
            database = Database.open_file(location, location.path, read_only=read_only, timeout=timeout)
        try:
            return cls(database, Vault.beside(location), created=_prepare(database, create=create))
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the store. May be called again; anything else then raises `StoreClosed`."""
        self._known = None
        self._database.close()

    def __enter__(self) -> Self:
        """The store, to be closed at the end of the `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def snapshot(self) -> Snapshot:
        """What the operator means now. What did not change since the last call is the same objects."""
        with self._database.transaction():
            return self._read()[1]

    def current(self) -> tuple[Revision, Snapshot]:
        """Head and its snapshot, read at one moment."""
        with self._database.transaction():
            return self._read()

    def settings(self) -> Settings:
        """The appliance's, without what else a snapshot holds."""
        with self._database.transaction():
            return reader.read_settings(self._database)

    def head(self) -> Revision:
        """The newest revision."""
        with self._database.transaction():
            return _head(self._database)

    def commit(
        self,
        changes: Sequence[Change],
        *,
        message: str,
        author: str | None = None,
        trial: int | None = None,
    ) -> Revision:
        """Make one revision of these changes, all or none; without an effect there is none, and head is
        returned. With `trial` it goes back after so many seconds unless `confirm` follows.

        Raises `Conflict` where a change's `before` is not what the store holds or what goes is in use,
        `NotFound` where a mapping refers to nothing, `InvalidValue` for a document, message or author.
        While another revision is on trial every change is a `Conflict`.
        """
        return self._change(lambda current: patch(current, changes), message, author, trial)

    def replace(
        self,
        build: Build,
        *,
        message: str,
        author: str | None = None,
        trial: int | None = None,
        contents: Sequence[bytes] = (),
    ) -> Revision:
        """Make one revision of what `build` makes of the current snapshot. Raises as `commit` does.

        `contents` are packed contents of block lists that the revision brings.

        No other writer comes between reading and writing, so no update is lost. `build` runs with the write
        lock held: it must not ask anybody anything.
        """

        def rebuild(current: Snapshot) -> Snapshot:
            wanted = build(current)
            check_names(wanted)
            # Through documents: what was put together in memory passes the same readers as what came from a
            # file.
            return patch(current, diff(current, wanted))

        return self._change(rebuild, message, author, trial, contents=contents)

    def block_contents(self, sha256: str) -> BlockContents:
        """What a block list holds. Raises `NotFound`."""
        with self._database.transaction():
            return read_contents(self._database, sha256)

    def contents_of(self, snapshot: Snapshot) -> dict[str, BlockContents]:
        """What the block lists of a snapshot hold, by SHA-256. Raises `NotFound`."""
        with self._database.transaction():
            named = {item.sha256 for item in snapshot.block_lists}
            return {sha256: read_contents(self._database, sha256) for sha256 in named}

    def changes_since(self, number: int) -> tuple[Revision, tuple[Change, ...]]:
        """Head, and what turns the snapshot of revision `number` into its own. Raises `NotFound`."""
        with self._database.transaction():
            head = _head(self._database)
            reader.read_revision(self._database, number)
            return head, reader.read_changes(self._database, number, head.number)

    def revisions(self, limit: int = 20) -> list[Revision]:
        """The newest revisions, newest first."""
        with self._database.transaction():
            return reader.read_revisions(self._database, limit)

    def revision(self, number: int) -> Revision:
        """One revision. Raises `NotFound`."""
        with self._database.transaction():
            return reader.read_revision(self._database, number)

    def changes(self, number: int) -> tuple[Change, ...]:
        """What one revision changed; nothing for the first. Raises `NotFound`."""
        with self._database.transaction():
            reader.read_revision(self._database, number)
            return reader.read_changes(self._database, number - 1, number)

    def snapshot_at(self, number: int) -> Snapshot:
        """The snapshot of an older revision, checked against its SHA-256. Raises `NotFound`."""
        with self._database.transaction():
            return self._at(number)

    def rollback(
        self,
        number: int,
        *,
        message: str | None = None,
        author: str | None = None,
        trial: int | None = None,
    ) -> Revision:
        """Make a new revision that equals an older one. Raises `NotFound`.

        Going back to where a trial came from ends the trial.
        """
        said = message or f"roll back to revision {number}"
        return self._change(lambda current: self._at(number), said, author, trial, ends_at=number)

    def trial(self) -> Trial | None:
        """The revision that waits to be confirmed, if one does."""
        with self._database.transaction():
            return read_trial(self._database)

    def confirm(self, moment: Moment | None = None) -> Trial:
        """Keep the revision on trial. Raises `NoTrial`, or `Conflict` where its time is over."""
        with self._database.writing() as dal:
            trial = read_trial(self._database)
            if trial is None:
                raise NoTrial
            if not trial.remaining(moment or Moment.now()):
                raise Conflict(
                    f"the time to confirm revision {trial.revision} is over: it goes back",
                    hint=f"marchproxy revision rollback {trial.revision} brings it again afterwards",
                )
            end_trial(dal)
            return trial

    def revert(self, trial: Trial) -> Revision:
        """Go back from a trial that nobody has confirmed. One that has ended meanwhile is left alone."""
        said = f"revision {trial.revision} was not confirmed: back to {trial.previous}"
        with self._database.transaction():
            running, head = read_trial(self._database), _head(self._database)
        if running != trial:
            return head
        return self.rollback(trial.previous, message=said, author=_DAEMON)

    def verify(self) -> Revision:
        """Check that the store holds the snapshot that head was made for. Raises `StoreCorrupt`."""
        with self._database.transaction():
            head, snapshot = self._read()
            reader.verify(self._database, snapshot, head)
            return head

    def create_cluster_key(self, cluster: str) -> str:
        """Make a cluster's API key, to be shown once. Raises `NotFound`, or `Conflict` where it has one."""
        return keys.create_key(self._database, cluster, datetime.now(UTC))

    def rotate_cluster_key(self, cluster: str, *, overlap: timedelta = keys.OVERLAP) -> str:
        """Make a new API key, to be shown once; the old one works for `overlap` longer. Raises `NotFound`."""
        return keys.rotate_key(self._database, cluster, datetime.now(UTC), overlap)

    def verify_cluster_key(self, cluster: str, key: str, *, now: datetime | None = None) -> bool:
        """Whether a key opens the cluster, now or at another moment; without such a cluster none does."""
        return keys.verify_key(self._database, cluster, key, now or datetime.now(UTC))

    def cluster_keys(self, cluster: str) -> list[keys.ClusterKey]:
        """The keys of a cluster as far as the store knows them: hashes and times."""
        with self._database.transaction():
            return keys.read_keys(self._database, cluster)

    def _change(
        self,
        build: Build,
        message: str,
        author: str | None,
        trial: int | None = None,
        *,
        ends_at: int | None = None,
        contents: Sequence[bytes] = (),
    ) -> Revision:
        with self._database.writing() as dal:
            running = read_trial(self._database)
            returns = running is not None and running.previous == ends_at
            if returns:
                end_trial(dal)
            else:
                refuse_during(running)
            head, current = self._read()
            wanted = build(current)
            check_references(current, wanted)
            # A trial goes back in any case: its certificates may have gone with a cluster.
            if not returns:
                check_certificates(self._database, current, wanted)
            changes = diff(current, wanted)
            if not changes:
                return head
            for packed in contents:
                write_contents(dal, self._database, packed)
            check_contents(self._database, current, wanted)
            revision = _next(head.number, wanted, message, author)
            write_revision(dal, revision, changes)
            if trial is not None:
                write_trial(dal, start_trial(revision.number, head.number, trial, Moment.now()))
        self._known = revision, wanted
        return revision

    def _read(self) -> tuple[Revision, Snapshot]:
        """Head and its snapshot: from the tables the first time, later what was known, brought up to date."""
        head = _head(self._database)
        if self._known is not None and self._known[0].number < head.number:
            known, snapshot = self._known
            self._known = head, reader.advance(self._database, snapshot, known.number, head)
        elif self._known is None or self._known[0] != head:
            self._known = head, reader.read_snapshot(self._database)
        return self._known

    def _at(self, number: int) -> Snapshot:
        head, current = self._read()
        return reader.rebuild(self._database, current, head, number)


def _prepare(database: Database, *, create: bool) -> bool:
    """Bring schema and first revision into being where they are missing; whether the latter was."""
    if check_schema(database) == 0 and not create:
        raise StoreMissing(database.label)
    database.prepare()
    if not database.read_only:
        migrate(database)
    if reader.read_revisions(database, 1):
        return False
    if not create:
        raise StoreMissing(database.label)
    with database.writing() as dal:
        if reader.read_revisions(database, 1):
            return False
        first = Snapshot()
        write_revision(dal, _next(0, first, "create the store", None), diff(Snapshot(clusters=()), first))
    return True


def _head(database: Database) -> Revision:
    revisions = reader.read_revisions(database, 1)
    if not revisions:
        raise StoreCorrupt(database.label, "it holds no revision")
    return revisions[0]


def _next(number: int, snapshot: Snapshot, message: str, author: str | None) -> Revision:
    time = datetime.now(UTC).replace(microsecond=0)
    return Revision(number + 1, snapshot.sha256(), author or current_author(), time, message)
