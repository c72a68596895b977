"""Servers and clients of the rig, talking to each other over plain routing."""

import hashlib
from collections.abc import Iterator

import pytest

from rig import Rig
from rig.payload import digest
from rig.servers import start_http, start_sink
from rig.traffic import HTTP, ask_tcp, fetch

pytestmark = pytest.mark.requires("root", "netns", "veth")

SIZE = 3_000_001


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        start_http(built.server, 80)
        start_sink(built.server, 9)
        built.forward()
        yield built


@pytest.fixture(params=["ipv4", "ipv6"])
def address(rig: Rig, request: pytest.FixtureRequest) -> str:
    return str(getattr(rig.server, request.param))


def test_the_server_tells_who_it_sees(rig: Rig) -> None:
    assert rig.client.call(fetch, rig.server.ipv4, 80) == b"client 10.1.0.2, server 10.2.0.2\n"


def test_one_connection_carries_many_requests(rig: Rig, address: str) -> None:
    with rig.client.call(HTTP, address, 80) as connection:
        assert [len(connection.get(f"/bytes/{size}")) for size in (0, 1, 70_000, 5)] == [0, 1, 70_000, 5]


def test_downloads_and_uploads_are_checked_by_hash(rig: Rig, address: str) -> None:
    seen: list[int] = []
    with rig.client.call(HTTP, address, 80) as connection:
        assert connection.download(SIZE, seen.append) == digest(SIZE)
        assert connection.upload(SIZE) == digest(SIZE)
    assert seen == sorted(seen)
    assert seen[-1] == SIZE


def test_the_sink_answers_after_half_close(rig: Rig, address: str) -> None:
    answer = rig.client.call(ask_tcp, address, 9, b"hello")
    assert answer.decode() == hashlib.sha256(b"hello").hexdigest()


def test_a_closed_port_is_refused(rig: Rig, address: str) -> None:
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, address, 81)
