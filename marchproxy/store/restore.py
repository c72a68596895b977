"""Putting a backup in the place of a store. What was there is kept beside it."""

import os
import secrets
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

from marchproxy.store.backup import Contents
from marchproxy.store.errors import StoreError
from marchproxy.store.location import FILE_NAME, locate, make_folder, refusal
from marchproxy.store.revision import Revision
from marchproxy.store.store import Store
from marchproxy.store.vault import KEY_FILE

_OURS = (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", KEY_FILE)
"""In this order: without its database a journal means nothing, beside another one it would be applied."""


def restore(
    contents: Contents, state_dir: Path | None = None, *, before: Callable[[], None] = lambda: None
) -> tuple[Revision, Path | None]:
    """Make this the store; its head, and the folder that what was there has been moved to.

    No daemon may run: `before` is called last of all, and may raise. The contents are opened, migrated and
    verified before anything is touched. Raises `StoreError`, for a backup of a newer version too.
    """
    location = locate(state_dir)
    if location.path is None:
        raise StoreError(
            f"store {location.label!r} is on a server",
            hint="take DATABASE_URL and DB_TYPE away to restore into a file",
        )
    state = location.path.parent
    try:
        make_folder(location.path)
        draft = Path(mkdtemp(prefix=".restore-", dir=state))
    except OSError as error:
        raise refusal(error, location.label) from error
    try:
        head = _prepare(contents, draft)
        before()
        replaced = _exchange(draft, state)
    except OSError as error:
        raise refusal(error, location.label) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return head, replaced


def _prepare(contents: Contents, draft: Path) -> Revision:
    owner = draft.parent.stat()
    for name, data in ((FILE_NAME, contents.database), (KEY_FILE, contents.key)):
        if data is not None:
            _write(draft / name, data)
    with Store.open(draft) as store:
        head = store.verify()
    if os.geteuid() == 0:
        for name in (FILE_NAME, KEY_FILE):
            if (draft / name).exists():
                os.chown(draft / name, owner.st_uid, owner.st_gid)
    return head


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _exchange(draft: Path, state: Path) -> Path | None:
    """Put what is in `draft` in the place of what is in `state`: both, or neither where it fails half way."""
    replaced = _set_aside(state)
    try:
        for name in (KEY_FILE, FILE_NAME):
            if (draft / name).exists():
                (draft / name).rename(state / name)
    except BaseException:
        if replaced is not None:
            for name in _OURS:
                if (replaced / name).exists():
                    (replaced / name).rename(state / name)
            replaced.rmdir()
        raise
    # The names, too, outlive a power cut.
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return replaced


def _set_aside(state: Path) -> Path | None:
    """Move what is there into a folder of its own; None where there is nothing."""
    present = [name for name in _OURS if (state / name).exists()]
    if not present:
        return None
    folder = state / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder.mkdir(mode=0o700)
    for name in present:
        (state / name).rename(folder / name)
    return folder
