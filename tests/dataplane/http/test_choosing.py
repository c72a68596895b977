"""The version of HTTP is agreed on by ALPN under TLS."""

import pytest

from tests.dataplane.http.http2.peer import Client
from tests.dataplane.http.site import answer, get, response, served
from tests.dataplane.http.test_tls import known, securely
from tests.dataplane.loops import looped


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["h2", "http/1.1"], "h2"),
        (["http/1.1", "h2"], "h2"),
        (["http/1.1"], "http/1.1"),
        (["h3"], None),
        ([], None),
    ],
)
@looped
async def test_what_was_agreed_on_is_spoken(offered: list[str], chosen: str | None) -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, backend), securely(at.port, "one.example", offered) as (reader, writer):
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == chosen
        if chosen == "h2":
            peer = Client(reader, writer)
            assert bytes((await peer.hear(peer.ask())).body) == b"hello"
        else:
            writer.write(get())
            assert (await response(reader))[1] == b"hello"
        assert backend.said("x-forwarded-proto") == "https"


@looped
async def test_what_was_not_agreed_on_is_not_spoken() -> None:
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _), securely(at.port, "one.example", ["http/1.1"]) as (reader, writer):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        head, _ = await response(reader)
        assert head.startswith("HTTP/1.1 505 ")
    tls = served(answer(), contexts=known(), tls="one")
    async with tls as (at, _), securely(at.port, "one.example", ["h2"]) as (reader, writer):
        writer.write(get())
        assert b"\x07" in await reader.read()
