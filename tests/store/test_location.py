import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import pytest

from marchproxy.model.errors import InvalidValue
from marchproxy.store.errors import StoreError, StoreForbidden, StoreMissing, StoreReadOnly
from marchproxy.store.location import Location, check_file, create_file, locate, state_dir
from marchproxy.store.store import Store

NOBODY = 65534


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({}, "/var/lib/marchproxy/marchproxy.db"),
        ({"MARCHPROXY_STATE_DIR": "/srv/edge"}, "/srv/edge/marchproxy.db"),
        ({"MARCHPROXY_STATE_DIR": ""}, "/var/lib/marchproxy/marchproxy.db"),
        ({"DB_TYPE": "SQLite", "MARCHPROXY_STATE_DIR": "/srv/edge"}, "/srv/edge/marchproxy.db"),
        ({"DATABASE_URL": "sqlite:////srv/other.db", "MARCHPROXY_STATE_DIR": "/srv/edge"}, "//srv/other.db"),
        ({"DATABASE_URL": "sqlite:///srv/other.db"}, "/srv/other.db"),
    ],
)
def test_a_file(environment: dict[str, str], path: str) -> None:
    location = locate(None, environment)
    assert (location.engine.name, location.path, location.label) == ("sqlite", Path(path), path)


def test_a_given_folder_comes_before_the_environment(tmp_path: Path) -> None:
    assert locate(tmp_path, {"DATABASE_URL": "mysql://h/db"}).path == tmp_path / "marchproxy.db"


@pytest.mark.parametrize(
    ("environment", "label", "uri"),
    [
        (
            {"DATABASE_URL": "postgresql://u:p%40ss%2F@db.example:6432/edge?sslmode=require"},
            "postgres://db.example:6432/edge",
            "postgres://u:p%40ss%2F@db.example:6432/edge?sslmode=require",
        ),
        (
            {"DATABASE_URL": "mysql://u@[2001:db8::1]/edge"},
            "mysql://[2001:db8::1]:3306/edge",
            "mysql://u:@[2001:db8::1]:3306/edge",
        ),
        (
            {"DB_TYPE": "postgres"},
            "postgres://localhost:5432/marchproxy",
            "postgres://marchproxy:@localhost:5432/marchproxy",
        ),
        (
            {
                "DB_TYPE": "mariadb",
                "DB_HOST": "db",
                "DB_PORT": "1",
                "DB_NAME": "n",
                "DB_USER": "a:b",
                "DB_PASS": "@/",
            },
            "mysql://db:1/n",
            "mysql://a%3Ab:%40%2F@db:1/n",
        ),
    ],
)
def test_a_server(environment: dict[str, str], label: str, uri: str) -> None:
    location = locate(None, environment)
    assert (location.path, location.label, location.uri) == (None, label, uri)


def test_a_password_is_in_no_text_that_anybody_reads() -> None:
    location = locate(None, {"DATABASE_URL": "postgres://ada:secret@db/edge"})
    assert "secret" in unquote(location.uri)
    assert "secret" not in repr(location) + location.label
    for url in (
        "oracle://ada:secret@db/edge",
        "postgres://ada:secret@db:port/edge",
        "postgres://ada:secret@db",
    ):
        with pytest.raises(InvalidValue) as caught:
            locate(None, {"DATABASE_URL": url})
        assert "secret" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    ("environment", "field"),
    [
        ({"DB_TYPE": "oracle"}, "DB_TYPE"),
        ({"DB_TYPE": "mysql", "DB_PORT": "http"}, "DB_PORT"),
        ({"DB_TYPE": "mysql", "DATABASE_URL": "postgres://db/edge"}, "DB_TYPE"),
        ({"DATABASE_URL": "sqlite://relative.db"}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:///"}, "DATABASE_URL"),
        ({"DATABASE_URL": "/srv/other.db"}, "DATABASE_URL"),
    ],
)
def test_an_environment_that_cannot_be_meant(environment: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        locate(None, environment)
    assert caught.value.field == field


def _modes(folder: Path) -> dict[str, str]:
    return {path.name: stat.filemode(path.stat().st_mode) for path in [folder, *folder.iterdir()]}


def test_only_the_owner_reads_what_is_made(state_dir: Path) -> None:
    old = os.umask(0)
    try:
        with Store.open(state_dir / "deep", create=True):
            made = _modes(state_dir / "deep")
    finally:
        os.umask(old)
    assert made == {
        "deep": "drwx------",
        "marchproxy.db": "-rw-------",
        "marchproxy.db-wal": "-rw-------",
        "marchproxy.db-shm": "-rw-------",
    }


def test_what_exists_is_left_alone(state_dir: Path) -> None:
    state_dir.mkdir(mode=0o750)
    path = state_dir / "marchproxy.db"
    path.write_bytes(b"something")
    path.chmod(0o640)
    create_file(path)
    assert path.read_bytes() == b"something"
    assert _modes(state_dir) == {"state": "drwxr-x---", "marchproxy.db": "-rw-r-----"}


@pytest.mark.requires("root")
def test_as_root_files_belong_to_whom_the_folder_belongs(state_dir: Path) -> None:
    """`sudo marchproxy init` beside a service that runs as a user of its own."""
    state_dir.mkdir(mode=0o700)
    os.chown(state_dir, NOBODY, NOBODY)
    with Store.open(state_dir, create=True):
        owners = {path.name: path.stat().st_uid for path in state_dir.iterdir()}
    assert owners == dict.fromkeys(("marchproxy.db", "marchproxy.db-wal", "marchproxy.db-shm"), NOBODY)


def test_a_folder_is_no_store(state_dir: Path) -> None:
    (state_dir / "marchproxy.db").mkdir(parents=True)
    for create in (False, True):
        with pytest.raises(StoreError, match="is not a file"):
            Store.open(state_dir, create=create)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for create in (True, False):
        for folder in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(StoreError, match="/file' is not a folder") as caught:
                Store.open(folder, create=create)
            assert not isinstance(caught.value, StoreMissing)
            assert "MARCHPROXY_STATE_DIR" in caught.value.hint


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, None),
        ({"MARCHPROXY_STATE_DIR": ""}, None),
        ({"MARCHPROXY_STATE_DIR": "/a"}, Path("/a")),
        ({"MARCHPROXY_STATE_DIR": "/a", "DATABASE_URL": ""}, Path("/a")),
        ({"MARCHPROXY_STATE_DIR": "/a", "DATABASE_URL": "postgresql://db/x"}, None),
        ({"MARCHPROXY_STATE_DIR": "/a", "DB_TYPE": "mysql"}, None),
    ],
)
def test_the_folder_where_nothing_comes_before_it(environment: dict[str, str], folder: Path | None) -> None:
    assert state_dir(environment) == folder


@contextmanager
def _as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everyone may enter; those of pytest are its user's own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.requires("root")
def test_permissions_are_named_before_sqlite_is_asked(open_folder: Path) -> None:
    with Store.open(open_folder, create=True):
        pass
    path = open_folder / "marchproxy.db"
    with _as_nobody(), pytest.raises(StoreForbidden, match="may not be opened") as forbidden:
        check_file(path, read_only=True)
    assert "root" in forbidden.value.hint
    path.chmod(0o644)
    with _as_nobody():
        check_file(path, read_only=True)
        with pytest.raises(StoreReadOnly, match="cannot be written"):
            check_file(path, read_only=False)
    open_folder.chmod(0o700)
    with _as_nobody():
        for create in (False, True):
            with pytest.raises(StoreForbidden):
                Store.open(open_folder, create=create)


def test_a_location_is_a_value() -> None:
    assert isinstance(locate(Path("/a")), Location)
    assert locate(Path("/a")) == locate(Path("/a"))
