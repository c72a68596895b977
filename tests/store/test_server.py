import re
import socket
from urllib.parse import unquote

import pytest

from marchproxy.store import server
from marchproxy.store.errors import StoreError
from marchproxy.store.location import locate
from marchproxy.store.server import open_server
from marchproxy.store.store import Store


@pytest.mark.parametrize(
    ("url", "package"),
    [("postgresql://ada:secret@db/edge", "psycopg2"), ("mysql://ada:secret@db/edge", "MySQLdb or pymysql")],
)
def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, url: str, package: str) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(StoreError, match=f"needs the Python package {package}$") as caught:
        Store.open()
    assert caught.value.hint.startswith("install it beside marchproxy: pip install ")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("adapter", ["Postgre", "MySQL"])
def test_pydal_reads_our_address_as_we_meant_it(adapter: str) -> None:
    from pydal import adapters

    scheme = {"Postgre": "postgres", "MySQL": "mysql"}[adapter]
    given = {
        "DB_TYPE": scheme,
        "DB_USER": "a@b",
        "DB_PASS": "p:/?#@",
        "DB_HOST": "2001:db8::1",
        "DB_NAME": "edge",
    }
    location = locate(None, given)
    read = re.match(getattr(adapters, adapter).REGEX_URI, location.uri.split("://", 1)[1])
    assert read is not None
    assert unquote(read["user"]) == "a@b"
    assert unquote(read["password"]) == "p:/?#@"
    assert (read["host"], int(read["port"]), read["db"]) == ("[2001:db8::1]", location.engine.port, "edge")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no driver is installed, pydal itself says so; with one, the connection is refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setattr(server, "find_spec", lambda name: object())
    location = locate(None, {"DATABASE_URL": f"postgres://ada:secret@127.0.0.1:{port}/edge"})
    with pytest.raises(
        StoreError, match=f"store 'postgres://127.0.0.1:{port}/edge' cannot be reached"
    ) as caught:
        open_server(location, read_only=False)
    assert caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint
    assert "Traceback" not in caught.value.hint
