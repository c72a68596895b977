"""Answers challenges of the kind TLS-ALPN-01 (RFC 8737; for addresses RFC 8738, section 6).

Whoever connects is shown a certificate that signs itself and holds a digest of the challenge, and is sent
away after the handshake. They come to a port of our own, or to the appliance's TLS listeners, whose workers
hand them over by a socket in the daemon's folder (`dataplane/admission/challenges.py`).
"""

import asyncio
import fcntl
import hashlib
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from marchproxy.client.asking import SourceFailed
from marchproxy.client.certorigin import TLS_ALPN, is_address
from marchproxy.store.memfile import in_memory

PROTOCOL = "acme-tls/1"
SOCKET_NAME = "acme.sock"
IDENTIFIER = "1.3.6.1.5.5.7.1.31"
"""Of the certificate's extension, id-pe-acmeIdentifier."""
_LIFE = timedelta(days=1)
"""To both sides of now: a CA looks at no dates."""
_READ = 8192


class TlsAnswers:
    """`Answers` by host."""

    kind = TLS_ALPN

    def __init__(self) -> None:
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._first = _context()
        self._first.sni_callback = self._choose

    def give(self, host: str, token: str, authorization: str) -> None:
        """See `Answers`."""
        try:
            pem = certificate(host, authorization)
        except ValueError:
            raise SourceFailed(f"there is no certificate for {host!r}, which the CA names") from None
        context = _context()
        with in_memory(pem) as path:
            context.load_cert_chain(path)
        name = ip_address(host).reverse_pointer if is_address(host) else host
        self._by_name[name.lower()] = context

    async def converse(self, connection: socket.socket) -> None:
        """See `Answers`."""
        loop = asyncio.get_running_loop()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._first.wrap_bio(incoming, outgoing, server_side=True)
        agreed = False
        while not agreed:
            try:
                tls.do_handshake()
                agreed = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                # What was wrong is in what is said now.
                await loop.sock_sendall(connection, outgoing.read())
                raise
            await loop.sock_sendall(connection, outgoing.read())
            piece = b"" if agreed else await loop.sock_recv(connection, _READ)
            if not (agreed or piece):
                return
            incoming.write(piece)
        with suppress(ssl.SSLWantReadError):
            tls.unwrap()
        await loop.sock_sendall(connection, outgoing.read())
        # Closing over what has not been read would reset the connection before the client has what was said.
        while await loop.sock_recv(connection, _READ):
            pass

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        found = self._by_name.get((name or "").lower())
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        tls.context = found
        return None


@contextmanager
def handed_over(folder: Path) -> Iterator[socket.socket]:
    """Where the appliance's listeners bring connections meanwhile. Raises `SourceFailed`."""
    place = folder / SOCKET_NAME
    try:
        with _alone(folder), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            _bind(sock, place)
            try:
                yield sock
            finally:
                place.unlink(missing_ok=True)
    except BlockingIOError:
        raise SourceFailed("another order is answered by the appliance's listeners just now") from None
    except OSError as error:
        raise SourceFailed(
            f"challenges cannot be answered by the appliance's listeners: {folder}: {error.strerror}",
            hint="the daemon makes this folder, and its user or root may order; or say --challenge-listen",
        ) from None


def handed(sock: socket.socket) -> socket.socket:
    """The next connection that was brought. Raises `OSError`."""
    _, descriptors, _, _ = socket.recv_fds(sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise OSError("nothing was brought")
    return socket.socket(fileno=descriptors[0])


def certificate(host: str, authorization: str) -> bytes:
    """What a CA is shown, with its key, as PEM (RFC 8737, section 3). Raises `ValueError`."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    named = x509.IPAddress(ip_address(host)) if is_address(host) else x509.DNSName(host)
    # An OCTET STRING of 32 bytes, in DER.
    proof = b"\x04\x20" + hashlib.sha256(authorization.encode()).digest()
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(IDENTIFIER), proof)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + _LIFE)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([named]), critical=False)
        .add_extension(extension, critical=True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + made.public_bytes(Encoding.PEM)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    context.set_alpn_protocols([PROTOCOL])
    return context


def _bind(sock: socket.socket, place: Path) -> None:
    """For the daemon's workers to send to, whoever orders. It gets its mode under another name first."""
    beside = place.with_name(f"{SOCKET_NAME}.new")
    beside.unlink(missing_ok=True)
    sock.bind(str(beside))
    beside.chmod(0o600)
    if os.geteuid() == 0:
        folder = place.parent.stat()
        os.chown(beside, folder.st_uid, folder.st_gid)
    beside.rename(place)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else is brought any there. Raises `OSError`; the kernel forgets a lock of who was killed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
