"""Starts the programs of `rig.programs` in a host."""

import sys
from pathlib import Path

from rig.host import Host
from rig.process import Process

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where `rig` and `marchproxy` are imported from."""


def start_http(host: Host, port: int = 80, *addresses: str) -> Process:
    """An HTTP server (`programs/http_server.py`) on the host's two addresses, or on those given."""
    return _start("http_server", host, port, addresses)


def start_echo(host: Host, port: int = 7, *addresses: str) -> Process:
    """A TCP and UDP echo server (`programs/echo_server.py`)."""
    return _start("echo_server", host, port, addresses)


def start_sink(host: Host, port: int = 9, *addresses: str) -> Process:
    """A server that hashes what it is sent (`programs/hash_sink.py`)."""
    return _start("hash_sink", host, port, addresses)


def start_grpc(host: Host, port: int = 50051, *addresses: str) -> Process:
    """A server of gRPC that is healthy (`programs/grpc_server.py`)."""
    return _start("grpc_server", host, port, addresses)


def start_dns(host: Host, port: int = 53, *addresses: str) -> Process:
    """A DNS server that knows its own address alone (`programs/dns_server.py`)."""
    return _start("dns_server", host, port, addresses)


def _start(program: str, host: Host, port: int, addresses: tuple[str, ...]) -> Process:
    binds = [word for address in addresses or (host.ipv4, host.ipv6) for word in ("--bind", address)]
    argv = [sys.executable, "-m", f"rig.programs.{program}", "--port", str(port), *binds]
    process = host.popen(argv, env={"PYTHONPATH": str(ROOT)})
    process.expect("ready")
    return process
