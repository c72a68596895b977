"""`marchproxy connect`: where its token comes from, and what it refuses to start with."""

import socket
import ssl
from pathlib import Path

import pytest

from marchproxy.cli import tunnelling
from marchproxy.cli.tunnelling import Opened, Security, Target
from tests.cli.console import Console


class Wire:
    """What would have been done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.security: Security | None = None
        monkeypatch.setattr(tunnelling, "by_proxy", self.by_proxy)
        monkeypatch.setattr(tunnelling, "by_preface", self.by_preface)
        monkeypatch.setattr(tunnelling, "relay", lambda opened, source, sink: None)

    def by_proxy(self, proxy: Target, target: Target, token: str, security: Security | None) -> Opened:
        return self.opened(security, proxy, target, token)

    def by_preface(self, target: Target, token: str, security: Security | None) -> Opened:
        return self.opened(security, target, token)

    def opened(self, security: Security | None, *call: object) -> Opened:
        self.calls.append(call)
        self.security = security
        return Opened(socket.socket())


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


def test_a_proxy_may_be_asked_without_a_token(console: Console, wire: Wire) -> None:
    console.ok("connect", "db.test", "5432", "--proxy", "10.1.0.1:3128")
    assert wire.calls == [(("10.1.0.1", 3128), ("db.test", 5432), "")]


def test_the_token_comes_from_a_file(console: Console, wire: Wire, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    console.ok("connect", "10.1.0.1", "7000", "--token-file", str(file))
    assert wire.calls == [(("10.1.0.1", 7000), "secret")]


def test_a_listener_without_a_token_is_not_even_tried(console: Console, wire: Wire) -> None:
    result = console("connect", "10.1.0.1", "7000")
    assert (result.code, wire.calls) == (2, [])
    assert "MARCHPROXY_TOKEN" in result.err


@pytest.mark.parametrize("content", ["two words", "line\nline", "ümlaut"])
def test_what_cannot_be_a_token_is_not_sent(
    console: Console, wire: Wire, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    result = console("connect", "10.1.0.1", "7000", "--token-file", str(file))
    assert (result.code, wire.calls) == (5, [])
    assert content not in result.err


def test_a_file_that_is_not_there_is_said(console: Console, wire: Wire, tmp_path: Path) -> None:
    result = console("connect", "10.1.0.1", "7000", "--token-file", str(tmp_path / "none"))
    assert result.code == 5
    assert "No such file" in result.err


@pytest.mark.parametrize(
    ("words", "code"),
    [(("db.test", "0", "--proxy", "10.1.0.1:1"), 5), (("db.test", "22", "--proxy", "*:1"), 2)],
)
def test_wrong_addresses_are_refused(console: Console, wire: Wire, words: tuple[str, ...], code: int) -> None:
    assert console("connect", *words).code == code
    assert wire.calls == []


@pytest.mark.parametrize(
    ("words", "proxy"),
    [
        (("--proxy", "https://proxy.example:3129"), ("proxy.example", 3129)),
        (("--proxy", "https://10.1.0.1:3129/"), ("10.1.0.1", 3129)),
        (("--proxy", "[fd01::1]:3129", "--tls"), ("fd01::1", 3129)),
        (("--proxy", "http://Proxy.Example.:3129", "--tls"), ("proxy.example", 3129)),
    ],
)
def test_a_proxy_may_be_spoken_to_under_tls(
    console: Console, wire: Wire, words: tuple[str, ...], proxy: tuple[str, int]
) -> None:
    console.ok("connect", "db.test", "5432", *words, "--server-name", "p.example")
    assert wire.calls == [(proxy, ("db.test", 5432), "")]
    assert wire.security is not None
    assert wire.security.server_name == "p.example"
    assert wire.security.context.verify_mode is ssl.CERT_REQUIRED
    assert wire.security.context.check_hostname


def test_a_listener_under_tls_may_want_no_token(console: Console, wire: Wire) -> None:
    console.ok("connect", "10.1.0.1", "7000", "--tls")
    assert wire.calls == [(("10.1.0.1", 7000), "")]
    assert wire.security is not None


@pytest.mark.parametrize("words", [("--ca", "ca.pem"), ("--server-name", "x")])
def test_whom_to_trust_is_a_question_of_tls(console: Console, wire: Wire, words: tuple[str, ...]) -> None:
    result = console("connect", "db.test", "22", "--proxy", "10.1.0.1:1", *words)
    assert (result.code, wire.calls) == (2, [])
    assert "--tls" in result.err


@pytest.mark.parametrize(
    "proxy", ["ftp://10.1.0.1:21", "proxy", "proxy:", ":1", "10.1.0.999:1", "fd01::1:3128", "two words:1"]
)
def test_what_is_no_proxy(console: Console, wire: Wire, proxy: str) -> None:
    result = console("connect", "db.test", "22", "--proxy", proxy)
    assert (result.code, wire.calls) == (5, [])
    assert "proxy" in result.err
