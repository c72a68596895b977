"""TLS as `connect` speaks it, against a server that is OpenSSL by way of Python."""

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from marchproxy.cli.context import Environment
from marchproxy.cli.securing import SecureSocket, client_context
from marchproxy.dataplane.credentials.contexts import server_context
from marchproxy.model.errors import InvalidValue, MarchproxyError, NotFound
from tests.certificates import authority, identity, signed

type Serve = Callable[[ssl.SSLSocket], None]
SERVER = server_context(identity())


@contextmanager
def serving(serve: Serve | None) -> Iterator[tuple[str, int]]:
    """A server for one connection; None: it only agrees on TLS, or not."""

    def run() -> None:
        connection, _ = listening.accept()
        with connection:
            try:
                with SERVER.wrap_socket(connection, server_side=True) as secured:
                    if serve:
                        serve(secured)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listening.getsockname()
        thread.join(5)
    assert not thread.is_alive()


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.write_text(authority().chain)
    return file


def connected(place: tuple[str, int], ca: Path | None, name: str = "proxy.example") -> SecureSocket:
    sock = socket.create_connection(place, 5)
    try:
        context = client_context(Environment(), str(ca) if ca else None)
        return SecureSocket(sock, context, name, "somewhere")
    except BaseException:
        sock.close()
        raise


def test_two_threads_read_and_write_at_once_and_ends_are_apart(ca: Path) -> None:
    data, got = os.urandom(3 << 20), bytearray()

    def serve(secured: ssl.SSLSocket) -> None:
        sending = threading.Thread(target=secured.sendall, args=(data,))
        received = 0
        while received < len(data):
            received += len(secured.recv(65536))
            if not sending.ident:
                sending.start()
        sending.join()
        secured.unwrap()

    with serving(serve) as place, connected(place, ca) as sock:

        def read() -> None:
            while piece := sock.recv(10_000):
                got.extend(piece)

        reading = threading.Thread(target=read)
        reading.start()
        sock.sendall(data)
        reading.join(10)
        assert bytes(got) == data
        sock.shutdown(socket.SHUT_WR)


def test_a_fin_alone_is_no_end(ca: Path) -> None:
    def serve(secured: ssl.SSLSocket) -> None:
        secured.sendall(b"half of")

    with serving(serve) as place, connected(place, ca) as sock:
        assert sock.recv(100) == b"half of"
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


@pytest.mark.parametrize("name", ["proxy.example", "127.0.0.1", "localhost"])
def test_names_and_addresses_are_verified(ca: Path, name: str) -> None:
    with serving(None) as place, connected(place, ca, name):
        pass


@pytest.mark.parametrize("name", ["other.example", "10.9.9.9"])
def test_another_name_is_not_taken(ca: Path, name: str) -> None:
    with serving(None) as place:
        with pytest.raises(MarchproxyError, match=f"somewhere has no certificate for {name}") as caught:
            connected(place, ca, name)
        assert "--server-name" in caught.value.hint


def test_without_the_ca_it_is_not_trusted(tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text(authority("another").chain)
    for trusted in (None, other):
        with serving(None) as place:
            with pytest.raises(MarchproxyError, match="somewhere is not trusted") as caught:
                connected(place, trusted)
            assert "cert show ca --pem" in caught.value.hint


def test_a_certificate_may_be_trusted_by_itself(tmp_path: Path) -> None:
    made = signed("proxy.example")
    own = server_context(identity().__class__("x", made.chain, made.key))
    pinned = tmp_path / "pinned.pem"
    pinned.write_text(made.chain)
    context = client_context(Environment(), str(pinned))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="proxy.example")
    server = own.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(2):
        for each in (client, server):
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() == "TLSv1.3"


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_speaks_no_tls_is_said(ca: Path, said: bytes) -> None:
    def run() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(10_000)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        with pytest.raises(
            (MarchproxyError, ConnectionResetError), match=r"no.* TLS|does not speak TLS|ended"
        ):
            connected(listening.getsockname(), ca)
        thread.join(5)


def test_a_file_without_certificates_is_none(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.write_text("nothing")
    with pytest.raises(InvalidValue, match="ca"):
        client_context(Environment(), str(file))
    with pytest.raises(NotFound):
        client_context(Environment(), str(tmp_path / "none"))
