"""One check of one backend, from a socket of the appliance's own."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

from marchproxy.dataplane.credentials.contexts import Contexts
from marchproxy.dataplane.health import icmp
from marchproxy.dataplane.health.http import BadAnswer, StatusReader, request
from marchproxy.dataplane.proxy import sockets
from marchproxy.dataplane.proxy.connecting import connect
from marchproxy.model.address import IPAddress
from marchproxy.policy.checks import BackendKey, Check

_OUR_FAULT = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM),
        *(errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT),
    }
)
"""The appliance cannot ask; that says nothing about the backend."""
_WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
}


class CannotCheck(Exception):
    """The check did not take place, for a reason on this side; the text says which."""


class _Unhealthy(Exception):
    """The backend answered, but not as a healthy one does."""


type Method = Callable[[BackendKey, Check, Contexts], Awaitable[None]]
NO_CERTIFICATES = Contexts()


async def probe(backend: BackendKey, check: Check, contexts: Contexts = NO_CERTIFICATES) -> str:
    """Check once; `contexts` have the certificates that backends are shown. Empty if the backend is healthy,
    else why not. Raises `CannotCheck`.
    """
    try:
        async with asyncio.timeout(check.timeout):
            await METHODS[check.method](backend, check, contexts)
    except TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except (_Unhealthy, BadAnswer) as error:
        return str(error)
    except ssl.SSLError as error:
        return f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}"
    except OSError as error:
        number = error.errno or 0
        if number in _OUR_FAULT:
            raise CannotCheck(f"{check.method} checks: {os.strerror(number)}") from error
        return _WORDS.get(number) or (os.strerror(number).lower() if number else str(error))
    return ""


async def _tcp(backend: BackendKey, _: Check, __: Contexts) -> None:
    """The port accepts a connection, which is reset at once: closing it would leave TIME_WAIT here."""
    sockets.reset(await _connect(backend.address, backend.port))


async def _http(backend: BackendKey, check: Check, contexts: Contexts) -> None:
    """A GET is answered with 2xx or 3xx."""
    reader, writer = await _open(backend, check, _tls(contexts, check) if check.method == "https" else None)
    try:
        writer.write(request(check.method, check.path, check.host, backend.port))
        status = await _read_status(reader)
    finally:
        writer.transport.abort()
    if not 200 <= status < 400:
        raise _Unhealthy(f"HTTP {status}")


async def _grpc(backend: BackendKey, check: Check, contexts: Contexts) -> None:
    """The health service says that a service is serving."""
    from marchproxy.dataplane.health.grpc import HealthCall

    secure = check.method == "grpcs"
    reader, writer = await _open(backend, check, _tls(contexts, check, "h2") if secure else None)
    host = f"[{check.host}]" if ":" in check.host else check.host
    call = HealthCall(check.path, f"{host}:{backend.port}", secure=secure)
    try:
        writer.write(call.to_send())
        while data := await reader.read(4096):
            found = call.feed(data)
            if found is not None:
                if found:
                    raise _Unhealthy(found)
                return
            writer.write(call.to_send())
    finally:
        writer.transport.abort()
    raise _Unhealthy("closed without an answer")


async def _icmp(backend: BackendKey, _: Check, __: Contexts) -> None:
    """An echo request is answered."""
    address, payload = backend.address, os.urandom(24)
    sock, raw = _ping_socket(address)
    with sock:
        sock.setblocking(False)
        sock.connect(sockets.sockaddr(address, 0))
        sock.send(icmp.echo_request(address.version, int.from_bytes(os.urandom(2)), payload))
        loop = asyncio.get_running_loop()
        while True:
            packet = await loop.sock_recv(sock, 2048)
            message = icmp.without_ip(packet) if raw and address.version == 4 else packet
            if icmp.is_reply(address.version, message, payload):
                return


METHODS: Mapping[str, Method] = MappingProxyType(
    {"tcp": _tcp, "http": _http, "https": _http, "icmp": _icmp, "grpc": _grpc, "grpcs": _grpc}
)


async def _connect(address: IPAddress, port: int) -> socket.socket:
    sock = await connect(address, port)
    # Whatever closes it resets: checks come by the thousand, and TIME_WAIT lasts a minute.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, sockets.RESET_ON_CLOSE)
    return sock


async def _open(
    backend: BackendKey, check: Check, secure: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = await _connect(backend.address, backend.port)
    try:
        name = check.host if secure and check.host != str(backend.address) else ""
        return await asyncio.open_connection(sock=sock, ssl=secure, server_hostname=name if secure else None)
    except BaseException:
        sockets.reset(sock)
        raise


async def _read_status(reader: asyncio.StreamReader) -> int:
    status = StatusReader()
    while data := await reader.read(4096):
        found = status.feed(data)
        if found is not None:
            return found
    raise _Unhealthy("closed without an answer")


def _tls(contexts: Contexts, check: Check, *protocols: str) -> ssl.SSLContext:
    """Certificates are not verified: the check asks whether the backend answers, and carries no secret."""
    return contexts.client("", protocols, check.certificate, verified=False)


def _ping_socket(address: IPAddress) -> tuple[socket.socket, bool]:
    """A socket for echo requests, and whether it is a raw one.

    Ping sockets need no capability but a group in net.ipv4.ping_group_range, which starts out empty.
    """
    protocol = socket.IPPROTO_ICMP if address.version == 4 else socket.IPPROTO_ICMPV6
    family = sockets.family_of(address)
    try:
        return socket.socket(family, socket.SOCK_DGRAM, protocol), False
    except PermissionError:
        pass
    try:
        return socket.socket(family, socket.SOCK_RAW, protocol), True
    except PermissionError:
        need = "icmp checks need CAP_NET_RAW, or the daemon's group in net.ipv4.ping_group_range"
        raise CannotCheck(need) from None
