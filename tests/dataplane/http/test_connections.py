"""Connections of clients, whatever version they speak."""

import pytest

from marchproxy.dataplane.http.client import ClientConnection
from marchproxy.dataplane.http.connections import Carried, Connection, Owner
from marchproxy.dataplane.http.http2.client import Http2Connection
from marchproxy.dataplane.http.listeners import HttpListeners


def named(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize("kind", [ClientConnection, Http2Connection])
def test_listeners_see_each_version_alike(kind: type) -> None:
    wanted = named(Connection) | named(Carried)
    assert len(wanted) > 6
    assert [name for name in wanted if not callable(getattr(kind, name, None))] == [
        name for name in wanted if isinstance(getattr(kind, name, None), property)
    ]


def test_listeners_own_them() -> None:
    assert all(callable(getattr(HttpListeners, name)) for name in named(Owner))
