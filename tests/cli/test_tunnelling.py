"""What `connect` says on the wire, against servers that answer as proxies do."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marchproxy.cli import tunnelling
from marchproxy.cli.context import Environment
from marchproxy.cli.securing import client_context
from marchproxy.dataplane.credentials.contexts import server_context
from marchproxy.model.errors import MarchproxyError, NotPermitted
from tests.certificates import authority, identity

type Serve = Callable[[socket.socket], None]


@contextmanager
def serving(serve: Serve) -> Iterator[tuple[str, int]]:
    """A server for one connection; what it fails with fails the test."""
    failures: list[BaseException] = []

    def run() -> None:
        connection, _ = server.accept()
        with connection:
            try:
                serve(connection)
            except BaseException as error:
                failures.append(error)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()
        thread.join(5)
    assert not failures
    assert not thread.is_alive()


def answering(expected: bytes, *answer: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        got = b""
        while len(got) < len(expected):
            got += connection.recv(1000)
        assert got == expected
        for piece in answer:
            connection.sendall(piece)

    return serve


CONNECT = b"CONNECT db.test:5432 HTTP/1.1\r\nHost: db.test:5432\r\nProxy-Authorization: Bearer secret\r\n\r\n"


def test_a_proxy_is_asked_with_the_token() -> None:
    with serving(answering(CONNECT, b"HTTP/1.1 200 OK\r\n", b"\r\nearly")) as proxy:
        opened = tunnelling.by_proxy(proxy, ("db.test", 5432), "secret")
        with opened.socket:
            assert opened.ahead == b"early"
            assert "secret" not in repr(opened)


def test_without_a_token_none_is_sent_and_ipv6_is_in_brackets() -> None:
    asked = b"CONNECT [2001:db8::1]:22 HTTP/1.1\r\nHost: [2001:db8::1]:22\r\n\r\n"
    with serving(answering(asked, b"HTTP/1.1 200 OK\r\n\r\n")) as proxy:
        tunnelling.by_proxy(proxy, ("2001:db8::1", 22), "").socket.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, NotPermitted), (407, NotPermitted), (429, NotPermitted), (502, MarchproxyError)],
)
def test_refusals_name_their_reason(status: int, kind: type[MarchproxyError]) -> None:
    answer = (
        f"HTTP/1.1 {status} No\r\nX-MarchProxy-Reason: NO_MAPPING\r\n\r\nDetail: nobody\x1b may\n".encode()
    )
    with (
        serving(answering(CONNECT, answer)) as proxy,
        pytest.raises(MarchproxyError, match=r"NO_MAPPING: nobody\? may") as caught,
    ):
        tunnelling.by_proxy(proxy, ("db.test", 5432), "secret")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("answer", "message"),
    [(b"", "ended the connection"), (b"SSH-2.0-x\r\n\r\n", "no HTTP proxy"), (b"HTTP/1.1 200", "ended")],
)
def test_what_is_no_proxy_is_said(answer: bytes, message: str) -> None:
    with serving(answering(CONNECT, answer)) as proxy, pytest.raises(MarchproxyError, match=message):
        tunnelling.by_proxy(proxy, ("db.test", 5432), "secret")


@pytest.mark.parametrize("answer", [b"OK\nearly", b"MARCHPROXY_AUTH\nOK\nearly"])
def test_a_listener_is_told_the_token_first(answer: bytes) -> None:
    with serving(answering(b"MARCHPROXY/1 secret\n", answer)) as listener:
        opened = tunnelling.by_preface(listener, "secret")
        with opened.socket:
            assert opened.socket.recv(100) == b"early"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"ERR AUTH_EXPIRED\n", "AUTH_EXPIRED"),
        (b"SSH-2.0-x\r\n", "another protocol"),
        (b"x" * 400, "another"),
    ],
)
def test_a_listener_that_refuses_says_why(answer: bytes, said: str) -> None:
    with (
        serving(answering(b"MARCHPROXY/1 secret\n", answer)) as listener,
        pytest.raises(NotPermitted, match=said),
    ):
        tunnelling.by_preface(listener, "secret")


def test_nobody_there_is_an_error_of_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = server.getsockname()
    with pytest.raises(MarchproxyError, match=f"127.0.0.1:{gone[1]} cannot be reached"):
        tunnelling.by_preface(gone, "secret")


def test_both_directions_are_carried_to_their_ends() -> None:
    """The far end speaks last: what it says after our FIN still arrives."""

    def serve(connection: socket.socket) -> None:
        got = b""
        while piece := connection.recv(65536):
            got += piece
        connection.sendall(b"%d" % len(got) * 100_000)

    source, fed = os.pipe()
    drained, sink = os.pipe()
    feeding = threading.Thread(target=_feed, args=(fed, 1_000_000))
    taken: list[bytes] = []
    taking = threading.Thread(target=_take, args=(drained, taken))
    with serving(serve) as target:
        feeding.start()
        taking.start()
        with socket.create_connection(target) as sock:
            tunnelling.relay(tunnelling.Opened(sock, b"first"), source, sink)
        feeding.join(5)
        taking.join(5)
    for descriptor in (source, drained):
        os.close(descriptor)
    assert b"".join(taken) == b"first" + b"1000000" * 100_000


def test_where_one_socket_is_both_its_end_is_heard() -> None:
    """As under inetd, or iperf3 whose client waits for the end of a stream before it says anything itself."""
    ours, theirs = socket.socketpair()
    with serving(lambda connection: connection.sendall(b"all of it")) as target, ours, theirs:
        sock = socket.create_connection(target)
        ends = os.dup(ours.fileno()), os.dup(ours.fileno())
        relaying = threading.Thread(target=tunnelling.relay, args=(tunnelling.Opened(sock, b""), *ends))
        relaying.start()
        theirs.settimeout(30)
        assert b"".join(iter(lambda: theirs.recv(65536), b"")) == b"all of it"
        theirs.shutdown(socket.SHUT_WR)
        relaying.join(5)
        assert not relaying.is_alive()
        sock.close()
        os.close(ends[0])


def test_a_source_that_is_cut_off_ends_the_tunnel() -> None:
    """Its other end has reset it, and is no longer there to hear anything."""

    def serve(connection: socket.socket) -> None:
        connection.recv(1)

    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        serving(serve) as target,
    ):
        client = socket.create_connection(door.getsockname())
        ours, _ = door.accept()
        sock = socket.create_connection(target)
        ends = os.dup(ours.fileno()), os.dup(ours.fileno())
        ours.close()
        relaying = threading.Thread(target=tunnelling.relay, args=(tunnelling.Opened(sock, b""), *ends))
        relaying.start()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        relaying.join(5)
        assert not relaying.is_alive()
        sock.close()
        os.close(ends[0])


def _feed(descriptor: int, size: int) -> None:
    with open(descriptor, "wb") as file:
        file.write(bytes(size))


def _take(descriptor: int, taken: list[bytes]) -> None:
    while piece := os.read(descriptor, 65536):
        taken.append(piece)


def test_a_listener_that_wants_tls_is_recognised() -> None:
    """It answers our line with an alert, and ends."""
    alert = b"\x15\x03\x03\x00\x02\x02\x32"
    with (
        serving(answering(b"MARCHPROXY/1 secret\n", alert)) as listener,
        pytest.raises(NotPermitted, match="it speaks TLS: give --tls"),
    ):
        tunnelling.by_preface(listener, "secret")


def test_without_a_token_nothing_is_said_first() -> None:
    with serving(answering(b"own", b"answer")) as listener:
        opened = tunnelling.by_preface(listener, "")
        with opened.socket as sock:
            sock.sendall(b"own")
            assert sock.recv(100) == b"answer"


def test_all_of_it_under_tls(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(authority().chain)
    security = tunnelling.Security(client_context(Environment(), str(file)), "proxy.example")
    server = server_context(identity())

    def secured(serve: Serve) -> Serve:
        def run(connection: socket.socket) -> None:
            with server.wrap_socket(connection, server_side=True) as inner:
                serve(inner)

        return run

    with serving(secured(answering(CONNECT, b"HTTP/1.1 200 OK\r\n\r\nearly"))) as proxy:
        opened = tunnelling.by_proxy(proxy, ("db.test", 5432), "secret", security)
        with opened.socket:
            assert opened.ahead == b"early"
    with serving(secured(answering(b"MARCHPROXY/1 secret\n", b"OK\n"))) as listener:
        tunnelling.by_preface(listener, "secret", security).socket.close()
    wrong = tunnelling.Security(security.context, "other.example")
    with (
        serving(lambda connection: connection.settimeout(1)) as listener,
        pytest.raises(MarchproxyError, match=r"127\.0\.0\.1:\d+ ended the connection"),
    ):
        tunnelling.by_preface(listener, "secret", wrong)
