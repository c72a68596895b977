"""TLS as `connect` speaks it: verified, on a blocking socket that one thread reads and another one writes.

Python's own sockets under TLS may not be used by two threads at once, and cannot end one direction alone.
"""

import socket
import ssl
from threading import Lock

from marchproxy.cli.context import Environment
from marchproxy.cli.files import read_bytes
from marchproxy.dataplane.proxy.protocol.secured import Secured
from marchproxy.model.errors import InvalidValue, MarchproxyError

_PIECE = 65_536
_OTHER_HOST = (62, 63, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH, and those of mail and addresses (x509_vfy.h)."""
_SAYS_NOTHING_OF_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}
)


def client_context(environment: Environment, ca: str | None) -> ssl.SSLContext:
    """Trusts the system's CAs, or those in the file `ca` alone. Raises `NotFound`, `NotPermitted`,
    `InvalidFile`, and `InvalidValue` for a file without certificates.
    """
    try:
        context = ssl.create_default_context(
            cadata=read_bytes(environment, ca).decode("ascii", "replace") if ca is not None else None
        )
    except (ssl.SSLError, ValueError):
        raise InvalidValue("ca", ca, "a file with certificates in PEM form") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The same in all versions of Python: what curl and openssl take, the certificate itself included.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


class SecureSocket:
    """A connected, blocking socket under TLS, with what `connect` uses of a socket's methods."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str, where: str) -> None:
        """Agree on TLS with `server_name` at `where`. Raises `MarchproxyError`, and `OSError`."""
        self._socket = sock
        self._secured = Secured(context, server=False, server_name=server_name)
        self._opened = b""
        self._tls = Lock()
        self._sending = Lock()
        try:
            self._shake()
        except ssl.SSLError as error:
            raise _not_agreed(error, server_name, where) from None

    def recv(self, size: int) -> bytes:
        """At most `size` bytes; empty: the peer sends no more. A FIN alone is `ConnectionResetError`."""
        while not self._opened:
            with self._tls:
                self._opened = bytes(self._secured.open(b""))
            if self._opened or self._secured.ended:
                break
            data = self._socket.recv(_PIECE)
            if not data:
                raise ConnectionResetError("TLS was not ended")
            with self._tls:
                self._opened = bytes(self._secured.open(data))
        data, self._opened = self._opened[:size], self._opened[size:]
        return data

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        with self._sending:
            with self._tls:
                sealed = self._secured.seal(data)
            self._socket.sendall(sealed)

    def shutdown(self, how: int) -> None:
        """Say that we send no more; `how` is SHUT_WR."""
        with self._sending:
            with self._tls:
                said = self._secured.close()
            self._socket.sendall(said)
            self._socket.shutdown(how)

    def settimeout(self, seconds: float | None) -> None:
        """As of `socket.socket`."""
        self._socket.settimeout(seconds)

    def fileno(self) -> int:
        """As of `socket.socket`."""
        return self._socket.fileno()

    def close(self) -> None:
        """As of `socket.socket`."""
        self._socket.close()

    def __enter__(self) -> "SecureSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _shake(self) -> None:
        done = self._secured.shake(b"")
        while True:
            self._socket.sendall(self._secured.unsent())
            if done:
                return
            data = self._socket.recv(_PIECE)
            if not data:
                raise ConnectionResetError("it ended the connection in the middle of a handshake")
            try:
                done = self._secured.shake(data)
            except ssl.SSLError:
                # Whoever is not trusted hears so.
                self._socket.sendall(self._secured.unsent())
                raise


def _not_agreed(error: ssl.SSLError, server_name: str, where: str) -> MarchproxyError:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_HOST:
            message = f"{where} has no certificate for {server_name}"
            return MarchproxyError(message, hint="--server-name NAME says whom to expect there")
        return MarchproxyError(
            f"{where} is not trusted: {error.verify_message}",
            hint="--ca FILE says whom to trust; on the appliance: marchproxy cert show ca --pem",
        )
    why = (error.reason or "TLS failed").lower().replace("_", " ")
    if error.reason in _SAYS_NOTHING_OF_TLS:
        return MarchproxyError(f"{where} does not speak TLS", hint="leave --tls out, if it is meant not to")
    return MarchproxyError(f"{where} did not agree on TLS: {why}")
