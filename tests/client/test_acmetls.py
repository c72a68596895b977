"""Challenges under TLS: by name, at a port or by the appliance's listeners, and nobody waits for anybody."""

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from marchproxy.client import acmeresponder
from marchproxy.client.acmeresponder import answering, listening
from marchproxy.client.acmetls import IDENTIFIER, SOCKET_NAME, TlsAnswers, certificate, handed, handed_over
from marchproxy.client.asking import SourceFailed
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from tests.client.acmeca import shown_at
from tests.client.test_acmeresponder import connected, drained, free_port


@pytest.fixture(name="place")
def _place() -> Endpoint:
    return parse_endpoint(f"127.0.0.1:{free_port()}")


def read(der: bytes) -> tuple[list[object], bytes]:
    """The names of a certificate, and its proof."""
    shown = x509.load_der_x509_certificate(der)
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    proof = shown.extensions.get_extension_for_oid(x509.ObjectIdentifier(IDENTIFIER))
    assert proof.critical
    assert isinstance(proof.value, x509.UnrecognizedExtension)
    return [each.value for each in names], proof.value.value


def proof_of(authorization: str) -> bytes:
    return b"\x04\x20" + hashlib.sha256(authorization.encode()).digest()


def test_each_host_has_its_own_proof(place: Endpoint) -> None:
    with answering(TlsAnswers(), listening(place)) as answers:
        answers.give("www.example", "one", "one.thumb")
        answers.give("10.1.0.1", "two", "two.thumb")
        answers.give("fd01::1", "three", "three.thumb")
        assert read(shown_at(place.port, "WWW.example")) == (["www.example"], proof_of("one.thumb"))
        names, proof = read(shown_at(place.port, "1.0.1.10.in-addr.arpa"))
        assert (str(names[0]), proof) == ("10.1.0.1", proof_of("two.thumb"))
        assert read(shown_at(place.port, f"1.{'0.' * 27}1.0.d.f.ip6.arpa"))[1] == proof_of("three.thumb")


@pytest.mark.parametrize("name", ["other.example", "10.1.0.1"])
def test_who_names_no_host_of_ours_is_shown_nothing(place: Endpoint, name: str) -> None:
    with answering(TlsAnswers(), listening(place)) as answers:
        answers.give("www.example", "one", "one.thumb")
        with pytest.raises(ssl.SSLError, match=r"UNRECOGNIZED_NAME|HANDSHAKE_FAILURE|INTERNAL_ERROR"):
            shown_at(place.port, name)


def test_what_is_no_tls_is_ended_and_who_is_silent_keeps_nobody_waiting(
    place: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acmeresponder, "PATIENCE", 0.5)
    with answering(TlsAnswers(), listening(place)) as answers, connected(place) as idle:
        answers.give("www.example", "one", "one.thumb")
        with connected(place) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in drained(sock)
        assert read(shown_at(place.port, "www.example"))[1] == proof_of("one.thumb")
        assert drained(idle) == b""


def test_a_host_that_no_certificate_can_name_is_said() -> None:
    with pytest.raises(SourceFailed, match="which the CA names"):
        TlsAnswers().give("www.é.example", "one", "one.thumb")


@contextmanager
def brought_to(folder: Path) -> Iterator[int]:
    """A port whose connections are brought there, as workers do."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def bring() -> None:
            client, _ = server.accept()
            with client, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(str(folder / SOCKET_NAME))
                socket.send_fds(sock, [b"\0"], [client.fileno()])

        thread = threading.Thread(target=bring)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_connections_are_taken_over_from_listeners(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).write_bytes(b"of one who was killed")
    with (
        answering(TlsAnswers(), handed_over(tmp_path), handed) as answers,
        brought_to(tmp_path) as port,
    ):
        answers.give("www.example", "one", "one.thumb")
        assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
        assert read(shown_at(port, "www.example"))[1] == proof_of("one.thumb")
    assert os.listdir(tmp_path) == []


def test_what_brings_no_connection_is_nothing(tmp_path: Path) -> None:
    with answering(TlsAnswers(), handed_over(tmp_path), handed) as answers:
        answers.give("www.example", "one", "one.thumb")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(str(tmp_path / SOCKET_NAME))
            sock.send(b"none")
        with brought_to(tmp_path) as port:
            assert read(shown_at(port, "www.example"))[1] == proof_of("one.thumb")


def test_one_order_at_a_time_is_answered_there(tmp_path: Path) -> None:
    with (
        handed_over(tmp_path),
        pytest.raises(SourceFailed, match="another order"),
        handed_over(tmp_path),
    ):
        pass
    with handed_over(tmp_path):
        assert (tmp_path / SOCKET_NAME).is_socket()


def test_a_proof_is_the_digest_of_its_authorization() -> None:
    pem = certificate("www.example", "token.thumb")
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index(b"-----BEGIN CERTIFICATE") :].decode())
    assert read(der) == (["www.example"], proof_of("token.thumb"))
