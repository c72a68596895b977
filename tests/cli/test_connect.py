"""`marchproxy connect`: where its token comes from, and what it refuses to start with."""

import socket
from pathlib import Path

import pytest

from marchproxy.cli import tunnelling
from marchproxy.cli.tunnelling import Opened, Target
from tests.cli.console import Console


class Wire:
    """What would have been done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[object, ...]] = []
        monkeypatch.setattr(tunnelling, "by_proxy", self.by_proxy)
        monkeypatch.setattr(tunnelling, "by_preface", self.by_preface)
        monkeypatch.setattr(tunnelling, "relay", lambda opened, source, sink: None)

    def by_proxy(self, proxy: Target, target: Target, token: str) -> Opened:
        self.calls.append((proxy, target, token))
        return Opened(socket.socket())

    def by_preface(self, target: Target, token: str) -> Opened:
        self.calls.append((target, token))
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
