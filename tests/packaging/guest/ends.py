"""Both ends of the traffic in an emulated machine: `ends.py suit|serve|fetch ADDRESS|tunnel FILE`."""

import array
import fcntl
import os
import socket
import struct
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SERVER, PROXY = "10.2.0.2", ("10.1.0.1", 3128)
TURN = 256 << 10
TURNS = 4
PATIENCE = 600
"""Seconds."""


class Page(BaseHTTPRequestHandler):
    """The same for everybody."""

    def do_GET(self) -> None:  # the library's name
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"it is the server\n")


def suit() -> None:
    """Virtual links take what XDP redirects where their other end has GRO, and XDP sees whole segments."""
    # ETHTOOL_SGRO, ETHTOOL_STXCSUM, ETHTOOL_STSO
    for command, value in ((0x2C, 1), (0x17, 0), (0x1F, 0)):
        data = array.array("B", struct.pack("=II", command, value))
        request = struct.pack("@16sP", b"eth0", data.buffer_info()[0]).ljust(40, b"\0")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control.fileno(), 0x8946, request)  # SIOCETHTOOL


def serve() -> None:
    """Pages at two ports, and an echo at a third."""
    for port in (80, 81):
        threading.Thread(target=ThreadingHTTPServer((SERVER, port), Page).serve_forever).start()
    with socket.create_server((SERVER, 9000)) as listening:
        while True:
            threading.Thread(target=_echo, args=(listening.accept()[0],)).start()


def _echo(peer: socket.socket) -> None:
    with peer:
        while data := peer.recv(1 << 16):
            peer.sendall(data)


def fetch(address: str) -> None:
    """Print the page, or why there is none."""
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=20) as answer:
            print(answer.read().decode().strip())
    except OSError as error:
        sys.exit(f"refused: {error}")


def tunnel(file: str) -> None:
    """A CONNECT tunnel in three parts, each of which waits for a file.

    FILE.1 and FILE.2 are made after the first parts, FILE.go.1 and FILE.go.2 are waited for then.
    """
    with socket.create_connection(PROXY, PATIENCE) as peer:
        peer.sendall(f"CONNECT {SERVER}:9000 HTTP/1.1\r\nHost: {SERVER}:9000\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += peer.recv(1) or sys.exit(f"no tunnel: {head!r}")
        for part in (1, 2, 3):
            for _ in range(TURNS):
                _turn(peer)
            print(f"part {part} came back whole", flush=True)
            if part < 3:
                Path(f"{file}.{part}").touch()
                _wait(Path(f"{file}.go.{part}"))


def _turn(peer: socket.socket) -> None:
    sent = os.urandom(TURN)
    sending = threading.Thread(target=peer.sendall, args=(sent,))
    sending.start()
    got = bytearray()
    while len(got) < len(sent):
        got += peer.recv(1 << 16) or sys.exit(f"it ended after {len(got)} bytes")
    sending.join()
    if got != sent:
        sys.exit("other bytes came back")


def _wait(file: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.2)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
