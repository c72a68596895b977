"""The client of the control socket, against servers that behave and servers that do not."""

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.client.control import Control
from marchproxy.client.errors import Refused
from marchproxy.model.errors import DaemonNotRunning, MarchproxyError, NotPermitted
from tests.cli.console import Answers, Console, Daemon, Screen, chunked

type Start = Callable[[Answers], Daemon]


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"a": 1}),
        b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{"a": 1}',
        b'HTTP/1.1 200 OK\r\n\r\n{"a": 1}',
        b'HTTP/1.0 200 OK\nX: y\n\n{"a": 1}',
        chunked(b'{"a"', b": 1}"),
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8;ext=1\r\n{"a": 1}\r\n0\r\n\r\n',
    ],
)
def test_a_body_may_end_in_any_way_that_http_knows(
    console: Console, daemon: Start, answer: tuple[int, Any] | bytes
) -> None:
    daemon({"GET /v1/status": answer})
    assert Control(console.environment()).get("/v1/status") == {"a": 1}


def test_parameters_that_say_nothing_are_left_out(console: Console, daemon: Start) -> None:
    server = daemon({"GET /v1/flows": (200, [])})
    Control(console.environment()).get(
        "/v1/flows", denied=True, source=None, port="", limit=5, reason="a b&c"
    )
    Control(console.environment()).get("/v1/flows", denied=False)
    assert [asked for asked, _ in server.asked] == [
        "GET /v1/flows?denied=1&limit=5&reason=a+b%26c",
        "GET /v1/flows",
    ]


def test_post_sends_a_document_or_none(console: Console, daemon: Start) -> None:
    server = daemon({"POST /v1/explain": (200, {}), "POST /v1/reload": (200, {})})
    Control(console.environment()).post("/v1/explain", {"source": "10.0.0.1"})
    Control(console.environment()).post("/v1/reload")
    assert server.asked == [("POST /v1/explain", {"source": "10.0.0.1"}), ("POST /v1/reload", None)]


def test_a_refusal_keeps_the_daemons_words(console: Console, daemon: Start) -> None:
    daemon({"POST /v1/reload": (409, {"error": {"name": "InvalidValue", "message": "no", "hint": "so"}})})
    with pytest.raises(Refused) as caught:
        Control(console.environment()).post("/v1/reload")
    assert (caught.value.kind, caught.value.message, caught.value.hint) == ("InvalidValue", "no", "so")


@pytest.mark.parametrize("document", [{}, [], {"error": "text"}, {"error": {}}])
def test_a_refusal_without_words(console: Console, daemon: Start, document: Any) -> None:
    daemon({"GET /v1/status": (503, document)})
    with pytest.raises(Refused, match="status 503"):
        Control(console.environment()).get("/v1/status")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "ended the conversation"),
        (b"HTTP/1.1 200 OK\r\nContent-", "ended the conversation"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", "ended the conversation"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}", "ended the conversation"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n{}", "does not speak HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "not JSON"),
    ],
)
def test_what_is_no_answer_is_named(console: Console, daemon: Start, answer: bytes, says: str) -> None:
    daemon({"GET /v1/status": answer})
    with pytest.raises(MarchproxyError, match=says):
        Control(console.environment()).get("/v1/status")


@pytest.mark.parametrize("rest", [b"", b'9\r\n{"a": 1}', b"1\r\n\n\r\n"])
def test_a_stream_ends_when_its_daemon_is_killed(console: Console, daemon: Start, rest: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    daemon({"GET /v1/events": head + rest})
    assert list(Control(console.environment()).stream("/v1/events")) == []


def test_a_stream_is_read_line_by_line(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/events": chunked(b"\n", b'{"a": 1}\n{"a"', b": 2}\n", b'{"a": 3}\n')})
    events = list(Control(console.environment()).stream("/v1/events"))
    assert events == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_without_a_socket_no_daemon_runs(console: Console) -> None:
    with pytest.raises(DaemonNotRunning, match="no daemon answers at"):
        Control(console.environment()).get("/v1/status")


def test_a_socket_that_a_crash_left_behind(console: Console) -> None:
    console.control_socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(console.control_socket))
    with pytest.raises(DaemonNotRunning):
        Control(console.environment()).get("/v1/status")


def test_a_folder_that_is_none(console: Console) -> None:
    console.write("run", "")
    with pytest.raises(DaemonNotRunning):
        Control(console.environment()).get("/v1/status")


def test_a_path_that_is_too_long_for_a_socket(console: Console) -> None:
    console.variables["MARCHPROXY_RUNTIME_DIR"] = "/" + "x" * 120
    with pytest.raises(MarchproxyError, match="too long") as caught:
        Control(console.environment()).get("/v1/status")
    assert "MARCHPROXY_RUNTIME_DIR" in caught.value.hint


def test_who_may_not_ask_is_told_what_would_work(
    console: Console, daemon: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(NotPermitted):
        Control(console.environment()).get("/v1/status")
    result = console("flows", "--reason", "a b")
    assert result.code == 7
    assert result.err.endswith("hint: run: sudo marchproxy flows --reason 'a b'\n")


def test_a_daemon_that_says_nothing(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marchproxy.client.control.ANSWER_SECONDS", 0.05)
    console.control_socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(console.control_socket))
        silent.listen()
        with pytest.raises(MarchproxyError, match=r"did not answer within 0\.05 seconds"):
            Control(console.environment()).get("/v1/status")


def test_vvv_shows_each_exchange(console: Console, daemon: Start) -> None:
    daemon({"GET /v1/status": (200, {}), "POST /v1/reload": (409, {})})
    environment = console.environment()
    environment.verbosity = 3
    Control(environment).get("/v1/status")
    with pytest.raises(Refused):
        Control(environment).post("/v1/reload")
    assert isinstance(environment.stderr, Screen)
    assert environment.stderr.getvalue().splitlines() == [
        f"{console.control_socket}: GET /v1/status: 200",
        f"{console.control_socket}: POST /v1/reload: 409",
    ]
