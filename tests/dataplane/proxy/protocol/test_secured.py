"""secured: TLS on memory, each direction with an end of its own."""

import os
import ssl
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy.dataplane.credentials.contexts import server_context
from marchproxy.dataplane.proxy.protocol.secured import MAX_PIECE, MAX_UNSENT, Secured
from tests.certificates import identity, trusting
from tests.dataplane.proxy.protocol.agreeing import agree

SERVER = server_context(identity(), ("http/1.1",))


def client_of(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> Secured:
    context = trusting()
    context.maximum_version = version
    return Secured(context, server=False, server_name="proxy.example")


def pair(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, size: int = 1 << 16) -> tuple[Secured, Secured]:
    """Server and client that have agreed; what passed between them came in pieces of `size`."""
    server, client = Secured(SERVER), client_of(version)
    agree(server, client, size)
    return server, client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [1, 7, 1 << 16])
def test_whatever_pieces_it_comes_in_it_is_the_same(version: ssl.TLSVersion, size: int) -> None:
    server, client = pair(version, size)
    data = os.urandom(40_000)
    sealed = client.seal(data)
    assert data not in sealed
    opened = b"".join(
        bytes(server.open(sealed[start : start + size * 100])) for start in range(0, len(sealed), size * 100)
    )
    assert opened == data


def test_the_largest_piece_is_opened_whole() -> None:
    server, client = pair()
    data = os.urandom(3 * MAX_PIECE)
    sealed = client.seal(data)
    opened = [bytes(server.open(sealed[at : at + MAX_PIECE])) for at in range(0, len(sealed), MAX_PIECE)]
    assert b"".join(opened) == data


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_has_said_its_end_still_receives(version: ssl.TLSVersion) -> None:
    server, client = pair(version)
    assert bytes(server.open(client.seal(b"all") + client.close())) == b"all"
    assert server.ended
    assert not server.closed
    for number in range(3):
        assert bytes(client.open(server.seal(b"late %d" % number))) == b"late %d" % number
    assert not client.open(server.close())
    assert client.ended


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_on_its_way_when_we_say_our_end_is_not_lost(version: ssl.TLSVersion) -> None:
    server, client = pair(version)
    flying = client.seal(b"flying" * 5000)
    assert not server.open(flying[:10])
    said = server.close()
    assert bytes(server.open(flying[10:])) == b"flying" * 5000
    assert not client.open(said)
    assert bytes(server.open(client.seal(b"later"))) == b"later"
    assert not server.open(client.close())
    assert (server.ended, client.ended) == (True, True)
    assert server.close() == b""


def test_nothing_is_opened_behind_an_end() -> None:
    server, client = pair()
    end = client.close()
    assert not server.open(end + b"garbage behind it")
    assert not server.open(b"more")
    assert server.ended


@pytest.mark.parametrize("place", [5, 40, -1])
def test_what_was_touched_on_the_way_is_refused(place: int) -> None:
    server, client = pair()
    sealed = bytearray(client.seal(b"x" * 100))
    sealed[place] ^= 1
    with pytest.raises(ssl.SSLError):
        server.open(bytes(sealed))


def test_http_in_the_clear_is_told_from_nonsense() -> None:
    for said, reason in (
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTPS_PROXY_REQUEST"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP_REQUEST"),
        (b"MARCHPROXY/1 token\n", "WRONG_VERSION_NUMBER"),
    ):
        with pytest.raises(ssl.SSLError) as caught:
            Secured(SERVER).shake(said)
        assert caught.value.reason == reason


def test_who_wants_answers_and_reads_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = pair()
    monkeypatch.setattr("marchproxy.dataplane.proxy.protocol.secured.MAX_UNSENT", -1)
    assert MAX_UNSENT > 0
    with pytest.raises(ConnectionResetError):
        server.open(client.seal(b"hello"))


def test_sessions_are_resumed() -> None:
    context = trusting()
    sessions: list[ssl.SSLSession | None] = []
    for reused in (False, True):
        server, client = Secured(SERVER), Secured(context, server=False, server_name="proxy.example")
        if sessions:
            client.tls.session = sessions[0]
        agree(server, client)
        assert client.tls.session_reused is reused
        sessions.append(client.tls.session)


@settings(max_examples=60)
@given(data=st.binary(max_size=3000), agreed=st.booleans(), kind=st.sampled_from([None, 20, 21, 22, 23]))
def test_nonsense_is_refused_and_nothing_else(data: bytes, agreed: bool, kind: int | None) -> None:
    """As records of any kind, before the handshake and after."""
    if kind is not None:
        data = bytes([kind]) + b"\x03\x03" + len(data).to_bytes(2) + data
    server = pair()[0] if agreed else Secured(SERVER)
    with suppress(ssl.SSLError):
        assert not (server.open(data) if agreed else server.shake(data))
    assert len(server.unsent()) <= MAX_UNSENT
