"""Ways a store can refuse, each with its own name; `StoreError` is what they have in common."""

import sqlite3

from marchproxy.model.errors import MarchproxyError, NotFound, NotPermitted

_RESTORE = "restore the state directory from a backup, or move the store away and run: marchproxy init"
_POSTGRES_LOCK_TIMEOUT = "55P03"
_MYSQL_LOCK_TIMEOUT = 1205


class StoreError(MarchproxyError):
    """The store could not do what it was asked to, and is as it was before."""


class StoreMissing(NotFound, StoreError):
    """There is no store yet."""

    def __init__(self, label: str) -> None:
        super().__init__("store", label, hint="run: marchproxy init")


class StoreClosed(StoreError):
    """The store was used after `close`."""

    def __init__(self, label: str) -> None:
        super().__init__(f"store {label!r} is closed")


class StoreCorrupt(StoreError):
    """What the store holds is not what was written."""

    def __init__(self, label: str, why: object) -> None:
        super().__init__(f"store {label!r} is damaged: {why}", hint=_RESTORE)


class StoreLocked(StoreError):
    """Another process kept the store to itself for longer than the busy timeout."""

    def __init__(self, label: str) -> None:
        who = "" if "://" in label else f"; if it stays so, `fuser {label}` shows which process it is"
        super().__init__(f"store {label!r} is locked by another process", hint=f"try again{who}")


class StoreReadOnly(NotPermitted, StoreError):
    """The store may be read at most."""

    def __init__(self, label: str, *, hint: str = "") -> None:
        super().__init__(f"store {label!r} cannot be written", hint=hint or _may_write(label))


class StoreForbidden(NotPermitted, StoreError):
    """The store may not even be read."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"store {label!r} may not be opened", hint="run this as root or as the service's user"
        )


class StoreFull(StoreError):
    """There is no space left where the store is."""

    def __init__(self, label: str) -> None:
        super().__init__(
            f"no space left for store {label!r}", hint="free some space, then repeat the command"
        )


class VaultUnreadable(StoreError):
    """A secret does not open with the key that there is."""

    def __init__(self, what: str, file: str) -> None:
        super().__init__(
            f"{what} does not open with the key in {file!r}",
            hint="bring back the key it was sealed with, or replace what was sealed: remove and add it",
        )


class VaultKeyMissing(StoreError):
    """The key of the vault is gone, and with it what was sealed."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f"the key of secrets, {file!r}, is gone",
            hint="bring it back from a backup; CREDENTIALS_DIRECTORY says where a systemd credential is",
        )


class VaultKeyInvalid(StoreError):
    """What is in the key's file is no key."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f"{file!r} holds no key of secrets", hint="it holds 32 random bytes as base64url, on one line"
        )


class VaultKeyExposed(NotPermitted, StoreError):
    """Others than the service's user may read the key."""

    def __init__(self, file: str) -> None:
        super().__init__(f"others may read the key of secrets, {file!r}", hint=f"chmod 600 {file}")


class SchemaTooNew(StoreError):
    """A newer version of MarchProxy wrote the store."""

    def __init__(self, label: str, found: int, known: int) -> None:
        super().__init__(
            f"store {label!r} was written by a newer version (schema {found}, this one knows {known})",
            hint="upgrade marchproxy on this machine",
        )


class SchemaTooOld(StoreError):
    """The store was opened for reading only, but needs migrations first."""

    def __init__(self, label: str, found: int, known: int) -> None:
        super().__init__(
            f"store {label!r} was written by an older version (schema {found}, this one needs {known})",
            hint="run: marchproxy init",
        )


def explain(error: Exception, label: str) -> StoreError:
    """What a driver's error means to an operator."""
    if isinstance(error, sqlite3.Error):
        return _explain_sqlite(error, label)
    if getattr(error, "pgcode", None) == _POSTGRES_LOCK_TIMEOUT or error.args[:1] == (_MYSQL_LOCK_TIMEOUT,):
        return StoreLocked(label)
    return StoreError(f"store {label!r}: {last_line(error)}")


def last_line(error: Exception) -> str:
    """The line of a driver's message that says what happened: they end with it, some after a number."""
    said = error.args[-1] if error.args else ""
    lines = [line.strip() for line in str(said).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _explain_sqlite(error: sqlite3.Error, label: str) -> StoreError:
    # Extended result codes carry the primary code in their low byte (https://sqlite.org/rescode.html).
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(label)
        case sqlite3.SQLITE_READONLY:
            return StoreReadOnly(label)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return StoreForbidden(label)
        case sqlite3.SQLITE_FULL:
            return StoreFull(label)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(label, error)
        case sqlite3.SQLITE_IOERR:
            return StoreError(f"store {label!r} cannot be read or written: {error}", hint="look at the disk")
    return StoreError(f"store {label!r}: {error}")


def _may_write(label: str) -> str:
    return (
        f"run this as root or as the service's user; `findmnt --target {label}` shows a read-only file system"
    )
