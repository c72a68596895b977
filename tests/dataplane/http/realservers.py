"""Servers that others wrote, on loopback, as backends: nginx, Caddy, and ASGI servers around one application.

Each says at `/said` by which protocol it was asked, and gives `LARGE` at `/large`; all but nginx give back at
`/echo` what they got.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rig import wait_for
from rig.payload import BLOCK
from tests.certificates import identity

ADDRESS = "127.0.0.2"
LARGE = BLOCK[:300_000]
ECHO = b"x" * 4000
"""More is not echoed by all."""


@dataclass(frozen=True, slots=True)
class Door:
    """A port of a server."""

    port: int
    version: str
    """That is spoken there with a proxy that agrees to it: `1.1` or `2`."""
    tls: bool


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    name: str
    doors: dict[tuple[str, bool], Door]
    """By version and TLS."""
    log: Path = field(repr=False)


def _ports(count: int) -> list[int]:
    """Free ones; all are held until all are known."""
    held = [socket.create_server((ADDRESS, 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def _certificate(folder: Path) -> tuple[Path, Path]:
    made = identity("server", "server.example", ADDRESS)
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_text(made.chain)
    key.write_bytes(made.key)
    key.chmod(0o600)
    return chain, key


@contextmanager
def nginx(folder: Path, *, clients_of: str = "") -> Iterator[Server]:
    """nginx. `clients_of`: a CA in PEM form, whose certificates it wants of those who speak TLS with it."""
    chain, key = _certificate(folder)
    (folder / "large").write_bytes(LARGE)
    verify = ""
    if clients_of:
        (folder / "clients.pem").write_text(clients_of)
        verify = f"ssl_verify_client on; ssl_client_certificate {folder}/clients.pem;"
    doors = [Door(port, *kind) for port, kind in zip(_ports(4), _KINDS, strict=True)]
    listens = [
        f"""server {{
            listen {ADDRESS}:{door.port}{" ssl" if door.tls else ""}{" http2" if door.version == "2" else ""};
            location = /said {{ return 200 "$server_protocol $request_method $ssl_client_s_dn"; }}
            location / {{ root {folder}; }}
        }}"""
        for door in doors
    ]
    (folder / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
        events {{ }}
        http {{
            access_log off; ssl_certificate {chain}; ssl_certificate_key {key}; {verify}
            client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
            uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; default_type text/plain;
            {" ".join(listens)}
        }}
    """)
    argv = ["/usr/sbin/nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with _running("nginx", argv, doors, folder / "said.log") as made:
        yield made


@contextmanager
def caddy(folder: Path) -> Iterator[Server]:
    """Caddy; in the clear it takes HTTP/2 from whoever begins with it."""
    chain, key = _certificate(folder)
    (folder / "large").write_bytes(LARGE)
    clear, secure = _ports(2)
    handle = f"""
        respond /said "{{http.request.proto}} {{http.request.method}}"
        respond /echo "{{http.request.body}}"
        root * {folder}
        file_server
    """
    (folder / "Caddyfile").write_text(f"""
        {{
            admin off
            auto_https off
            persist_config off
            servers {{
                protocols h1 h2 h2c
            }}
        }}
        http://:{clear} {{
            bind {ADDRESS}
            {handle}
        }}
        https://:{secure} {{
            bind {ADDRESS}
            tls {chain} {key}
            {handle}
        }}
    """)
    doors = [Door(secure if tls else clear, version, tls) for version, tls in _KINDS]
    argv = [str(Path(sys.executable).parent / "caddy"), "run", "--adapter", "caddyfile", "--config"]
    with _running("caddy", [*argv, str(folder / "Caddyfile")], doors, folder / "said.log") as made:
        yield made


@contextmanager
def uvicorn(folder: Path) -> Iterator[Server]:
    """uvicorn, which speaks HTTP/1.1."""
    [clear] = _ports(1)
    flags = ("--host", ADDRESS, "--port", str(clear), "--log-level", "warning", "--lifespan", "off")
    argv = [sys.executable, "-m", "uvicorn", *flags, f"{__name__}:application"]
    with _running("uvicorn", argv, [Door(clear, "1.1", False)], folder / "said.log") as made:
        yield made


@contextmanager
def hypercorn(folder: Path) -> Iterator[Server]:
    """Hypercorn; in the clear it takes HTTP/2 from whoever begins with it."""
    chain, key = _certificate(folder)
    clear, secure = _ports(2)
    flags = ("--insecure-bind", f"{ADDRESS}:{clear}", "--bind", f"{ADDRESS}:{secure}", "-w", "0")
    argv = [sys.executable, "-m", "hypercorn", *flags, "--certfile", str(chain), "--keyfile", str(key)]
    doors = [Door(secure if tls else clear, version, tls) for version, tls in _KINDS]
    with _running("hypercorn", [*argv, f"{__name__}:application"], doors, folder / "said.log") as made:
        yield made


_KINDS = (("1.1", False), ("1.1", True), ("2", False), ("2", True))


@contextmanager
def _running(name: str, argv: list[str], doors: list[Door], log: Path) -> Iterator[Server]:
    with log.open("wb") as said, subprocess.Popen(argv, stdout=said, stderr=said) as process:
        try:
            for port in {door.port for door in doors}:
                wait_for(partial(_listens, process, port, log), f"{name} at {port}", timeout=30)
            yield Server(name, {(door.version, door.tls): door for door in doors}, log)
        finally:
            process.terminate()


def _listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        socket.create_connection((ADDRESS, port)).close()
    except ConnectionRefusedError:
        return False
    return True


async def application(scope: Any, receive: Any, send: Any) -> None:
    """What the ASGI servers serve."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    said = f"HTTP/{scope['http_version']} {scope['method']}".encode()
    content = {"/said": said, "/large": LARGE, "/echo": body}.get(scope["path"], b"")
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content if scope["method"] != "HEAD" else b""})
