"""Where the store is: from the environment, and as a file that only its owner may read."""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port
from marchproxy.store.engines import ENGINES, SQLITE, Engine
from marchproxy.store.errors import StoreError, StoreForbidden, StoreFull, StoreMissing, StoreReadOnly

DEFAULT_STATE_DIR = Path("/var/lib/marchproxy")
FILE_NAME = "marchproxy.db"

_URL = "DATABASE_URL"
_TYPE = "DB_TYPE"


@dataclass(frozen=True, slots=True)
class Location:
    """A place for a store. `label` is what operators read: a path, or a URL without user and password."""

    engine: Engine
    label: str
    path: Path | None = None
    """The SQLite file."""
    uri: str = field(default="", repr=False)
    """A server as pydal wants it, credentials percent-encoded."""


def locate(state_dir: Path | None, environment: Mapping[str, str] = os.environ) -> Location:
    """Find the store: in `state_dir` if given, else where the environment says.

    `DATABASE_URL` (`sqlite:///FILE`, `postgresql://USER:PASSWORD@HOST:PORT/NAME`, `mysql://...`) comes first,
    then `DB_TYPE` with `DB_HOST`, `DB_PORT`, `DB_NAME`, `DB_USER` and `DB_PASS`, then `MARCHPROXY_STATE_DIR`.
    """
    if state_dir is not None:
        return _file(state_dir / FILE_NAME)
    engine = _engine(environment.get(_TYPE) or "sqlite", _TYPE)
    if url := environment.get(_URL):
        location = _from_url(url)
        if environment.get(_TYPE) and location.engine is not engine:
            raise InvalidValue(_TYPE, environment[_TYPE], f"{location.engine.name}, as {_URL} says")
        return location
    if engine is SQLITE:
        return _file(Path(environment.get("MARCHPROXY_STATE_DIR") or DEFAULT_STATE_DIR) / FILE_NAME)
    return _server(
        engine,
        user=quote(environment.get("DB_USER") or "marchproxy", safe=""),
        password=quote(environment.get("DB_PASS") or "", safe=""),
        host=environment.get("DB_HOST") or "localhost",
        port=parse_port(environment.get("DB_PORT") or engine.port, field="DB_PORT"),
        name=quote(environment.get("DB_NAME") or "marchproxy", safe=""),
    )


def state_dir(environment: Mapping[str, str]) -> Path | None:
    """The folder that `MARCHPROXY_STATE_DIR` names; None where `DATABASE_URL` or `DB_TYPE` comes first."""
    elsewhere = environment.get(_URL) or environment.get(_TYPE)
    value = environment.get("MARCHPROXY_STATE_DIR")
    return Path(value) if value and not elsewhere else None


def create_file(path: Path) -> None:
    """Make an empty file that only its owner reads (0600, folders 0700); what exists stays as it is.

    As root, a new file belongs to whom its folder belongs: the service's user can open what `sudo marchproxy
    init` made. SQLite gives its journal files owner and mode of the database by itself.
    """
    label = str(path)
    make_folder(path)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise refusal(error, label) from error
    try:
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make the folder that a file is to be in, where it is missing (0700)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _no_folder(path) from error
    except OSError as error:
        raise refusal(error, str(path)) from error


def check_file(path: Path, *, read_only: bool) -> None:
    """Raise unless the file is there and may be opened, by name: SQLite says one sentence to all of this."""
    label = str(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise StoreMissing(label) from error
    except NotADirectoryError as error:
        raise _no_folder(path) from error
    except OSError as error:
        raise refusal(error, label) from error
    if not stat.S_ISREG(mode):
        raise StoreError(f"store {label!r} is not a file")
    if not os.access(path, os.R_OK, effective_ids=True):
        raise StoreForbidden(label)
    if not read_only and not os.access(path, os.W_OK, effective_ids=True):
        raise StoreReadOnly(label)


def _no_folder(path: Path) -> StoreError:
    file = next(parent for parent in path.parents if parent.exists())
    return StoreError(
        f"store {str(path)!r} cannot be there: {str(file)!r} is not a folder",
        hint="MARCHPROXY_STATE_DIR names the folder of the store",
    )


def refusal(error: OSError, label: str) -> StoreError:
    """What the operating system's refusal of a file of the store means to an operator."""
    if isinstance(error, PermissionError):
        return StoreForbidden(label)
    if error.errno == errno.EROFS:
        return StoreReadOnly(label)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(label)
    return StoreError(f"store {label!r} cannot be opened: {error.strerror}")


def _file(path: Path) -> Location:
    path = path.absolute()
    return Location(SQLITE, str(path), path=path)


def _engine(name: str, source: str) -> Engine:
    try:
        return ENGINES[name.strip().lower()]
    except KeyError:
        raise InvalidValue(source, name, "sqlite, postgres or mysql") from None


def _from_url(url: str) -> Location:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # The URL may hold a password, so it is not repeated.
        raise InvalidValue(_URL, "…", "scheme://user:password@host:port/name") from None
    engine = _engine(parts.scheme, _URL)
    if engine is SQLITE:
        if parts.netloc or not parts.path.startswith("/") or parts.path == "/":
            raise InvalidValue(_URL, url, "sqlite:///ABSOLUTE/FILE")
        return _file(Path(parts.path))
    if not parts.path.strip("/"):
        raise InvalidValue(_URL, "…", f"{parts.scheme}://user:password@host:port/name")
    return _server(
        engine,
        user=parts.username or "marchproxy",
        password=parts.password or "",
        host=parts.hostname or "localhost",
        port=port or engine.port,
        name=parts.path.strip("/"),
        query=parts.query,
    )


def _server(
    engine: Engine, *, user: str, password: str, host: str, port: int, name: str, query: str = ""
) -> Location:
    place = f"[{host}]:{port}/{name}" if ":" in host else f"{host}:{port}/{name}"
    # The colon stays without a password too: pydal cannot decode credentials of which one is missing.
    uri = f"{engine.name}://{user}:{password}@{place}" + (f"?{query}" if query else "")
    return Location(engine, f"{engine.name}://{place}", uri=uri)
