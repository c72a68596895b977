"""Whose connection is brought to who orders a certificate, and that nobody else's is."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marchproxy.client.acmetls import PROTOCOL, SOCKET_NAME
from marchproxy.dataplane.admission import challenges
from marchproxy.dataplane.admission.challenges import awaited, brought, excluded
from tests.dataplane.loops import looped
from tests.dataplane.proxy.protocol.hellos import records


@pytest.fixture(name="folder", autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARCHPROXY_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def hello(*protocols: str) -> bytes:
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="www.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@contextmanager
def ordering(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(folder / SOCKET_NAME))
        sock.setblocking(False)
        yield sock


@contextmanager
def said(raw: bytes) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection whose client has said this, and the client."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(raw)
        yield ours, theirs


@looped
async def test_a_challenge_is_brought_whole_and_let_go(folder: Path) -> None:
    raw = hello(PROTOCOL)
    with ordering(folder) as order, said(raw) as (ours, theirs):
        assert awaited()
        assert await brought(ours)
        assert ours.fileno() == -1
        _, [descriptor], _, _ = socket.recv_fds(order, 1, 1)
        with socket.socket(fileno=descriptor) as taken:
            assert taken.recv(65536) == raw
            taken.send(b"answer")
        assert theirs.recv(100) == b"answer"


@pytest.mark.parametrize(
    "raw",
    [
        hello(),
        hello("h2", "http/1.1"),
        hello("h2", PROTOCOL),
        hello(PROTOCOL, "h2"),
        b"\x16\x03\x01\x00\x05hello",
    ],
)
@looped
async def test_nothing_else_is(folder: Path, raw: bytes) -> None:
    with ordering(folder) as order, said(raw) as (ours, _):
        assert not await brought(ours)
        assert ours.recv(65536) == raw
        with pytest.raises(BlockingIOError):
            order.recv(1)


@pytest.mark.parametrize(
    ("first", "none"),
    [
        (hello(), True),
        (hello("h2", "http/1.1") + b"more", True),
        (hello(PROTOCOL), False),
        (hello("h2", "http/1.1")[:-1], False),
        (hello("h2")[:4], False),
        (hello("h2")[:1], False),
        (records(hello("h2")[5:], 100), False),
        (records(hello(PROTOCOL)[5:], 100), False),
    ],
)
def test_only_a_whole_hello_that_offers_something_else_is_surely_none(first: bytes, none: bool) -> None:
    assert excluded(first) is none


@looped
async def test_where_nobody_orders_it_is_a_client_like_any_other(folder: Path) -> None:
    assert not awaited()
    with ordering(folder):
        pass
    assert awaited(), "the socket of one who was killed"
    # It does not wait for the rest of a hello either.
    for raw in (hello(PROTOCOL), hello(PROTOCOL)[:100]):
        with said(raw) as (ours, _):
            with pytest.raises(StopIteration) as over:
                brought(ours).send(None)
            assert over.value.value is False
            assert ours.recv(3) == b"\x16\x03\x01"


def test_both_sides_mean_the_same_protocol() -> None:
    assert (PROTOCOL,) == challenges._OFFER
