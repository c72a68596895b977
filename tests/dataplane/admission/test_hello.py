"""The name in a hello, whatever pieces it comes in, and nothing of it is taken."""

import socket
import ssl

import pytest

from marchproxy.dataplane.admission import hello
from marchproxy.dataplane.admission.hello import hello_name
from tests.dataplane.loops import looped


def said(name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@looped
async def test_the_name_is_read_and_everything_stays() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        raw = said("A.Example")
        theirs.send(raw)
        assert await hello_name(ours) == "a.example"
        assert ours.recv(65536) == raw


@looped
async def test_what_is_no_hello_has_no_name() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(b"\x16\x03\x01\x00\x05hello")
        assert await hello_name(ours) == ""


@looped
async def test_half_a_hello_is_waited_for_no_longer_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hello, "DEADLINE", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(said("a.example")[:50])
        assert await hello_name(ours) == ""
