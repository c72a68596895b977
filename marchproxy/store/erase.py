"""Taking a store away for good, with everything that was ever beside it: the factory reset."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from marchproxy.store.errors import StoreError
from marchproxy.store.location import FILE_NAME, locate, refusal
from marchproxy.store.vault import KEY_FILE

_STORE = (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", f"{FILE_NAME}-journal", KEY_FILE)
"""In this order: what is left when this is killed half way is a key that opens nothing any more."""
_FOLDERS = ("replaced-*", ".restore-*")
"""What `restore` sets aside has secrets, too."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What became of the folder."""

    removed: tuple[str, ...]
    """Paths that are gone."""
    left: tuple[str, ...]
    """Paths that are nobody's whom we know."""


def state_folder(state_dir: Path | None = None) -> Path:
    """The folder of the store. Raises `StoreError` where it is on a server: emptying that is the server's."""
    location = locate(state_dir)
    if location.path is None:
        raise StoreError(
            f"store {location.label!r} is on a server",
            hint="drop it with the server's own tools, then take DATABASE_URL and DB_TYPE away",
        )
    return location.path.parent


def erase(state_dir: Path | None = None, *, also: Iterable[str] = ()) -> Erased:
    """Remove the store, the key of its secrets, and the files named `also`. No daemon may run.

    Names are unlinked, and the folder is written to disk; what was in them is not overwritten, which would
    promise more on flash than it holds. Raises `StoreError`.
    """
    folder = state_folder(state_dir)
    removed = []
    try:
        for path in _ours(folder, also):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
            removed.append(str(path))
        left = sorted(str(path) for path in folder.iterdir()) if folder.is_dir() else []
        if removed:
            _settle(folder)
    except OSError as error:
        raise refusal(error, str(folder)) from error
    return Erased(tuple(removed), tuple(left))


def _ours(folder: Path, also: Iterable[str]) -> list[Path]:
    named = [folder / name for name in (*_STORE, *also)]
    kept = [path for pattern in _FOLDERS for path in sorted(folder.glob(pattern))]
    return [path for path in (*named, *kept) if path.is_symlink() or path.exists()]


def _settle(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
