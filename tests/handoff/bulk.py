"""One end of a connection that sends and receives as fast as it can."""

import hashlib
import random
import select
import socket
from dataclasses import dataclass

BLOCK = 1 << 20
TIMEOUT_MS = 20_000


@dataclass(frozen=True, slots=True)
class Seen:
    """What one end has sent and received."""

    sent: str
    """SHA-256, as the next."""
    received: str


def exchange(sock: socket.socket, size: int, seed: int) -> Seen:
    """Send `size` bytes, close that direction, and receive to the end. TimeoutError where nothing moves."""
    block = memoryview(random.Random(seed).randbytes(BLOCK))
    sent, received, at = hashlib.sha256(), hashlib.sha256(), 0
    sock.setblocking(False)
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    while True:
        ready = poll.poll(TIMEOUT_MS)
        if not ready:
            raise TimeoutError(f"nothing moves after {at} of {size} bytes")
        if ready[0][1] & select.POLLOUT and at < size:
            start = at % BLOCK
            count = sock.send(block[start : min(BLOCK, start + size - at)])
            sent.update(block[start : start + count])
            at += count
            if at == size:
                sock.shutdown(socket.SHUT_WR)
                poll.modify(sock, select.POLLIN)
        if ready[0][1] & ~select.POLLOUT:
            data = sock.recv(BLOCK)
            if not data:
                break
            received.update(data)
    if at < size:
        sock.settimeout(TIMEOUT_MS / 1000)
        while at < size:
            start = at % BLOCK
            count = sock.send(block[start : min(BLOCK, start + size - at)])
            sent.update(block[start : start + count])
            at += count
        sock.shutdown(socket.SHUT_WR)
    return Seen(sent.hexdigest(), received.hexdigest())
