"""Both ends of tunnels: random bytes in random pieces both ways, compared by hash; a program.

What a connection carries follows from its seed, which the client says first. As `server` it serves for ever;
as `client` it runs a number of tunnels, some at a time, and prints each that went wrong and a line of JSON.
"""

import asyncio
import hashlib
import json
import random
import socket
import struct
import sys
import time
from dataclasses import dataclass

PORT = 9000
TIMEOUT = 90.0
_SEED = struct.Struct("!Q")
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Talk:
    """What one connection carries, and how it ends."""

    seed: int
    up: int
    down: int
    ending: str
    """`both`: each side closes when it has said all; `client`, `server`: that side first, and then the other;
    `reset`: the client resets in the middle."""

    @classmethod
    def of(cls, seed: int, most: int) -> "Talk":
        """At most `most` bytes each way."""
        chance = random.Random(seed)
        up, down = (int(most * chance.random() ** 3) for _ in range(2))
        ending = chance.choices(("both", "client", "server", "reset"), (4, 3, 3, 1))[0]
        return cls(seed, up, down, ending)

    def said(self, by: str) -> bytes:
        """All that one side says."""
        size = self.up if by == "client" else self.down
        return random.Random(f"{self.seed} {by}").randbytes(size)


async def say(sock: socket.socket, data: bytes, chance: random.Random) -> None:
    """Send in random pieces, now and then with a pause."""
    loop = asyncio.get_running_loop()
    at, view = 0, memoryview(data)
    while at < len(data):
        size = chance.choice((1, 100, 1448, 5000, 40_000, 200_000))
        await loop.sock_sendall(sock, view[at : at + size])
        at += size
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random() * 0.02)


async def hear(sock: socket.socket) -> tuple[bytes, float]:
    """All that comes until the other side closes, and the longest wait between two pieces, in seconds."""
    loop = asyncio.get_running_loop()
    heard, longest, last = bytearray(), 0.0, time.monotonic()
    while data := await loop.sock_recv(sock, 1 << 18):
        now = time.monotonic()
        if heard:
            longest = max(longest, now - last)
        last = now
        heard += data
    return bytes(heard), longest


async def converse(sock: socket.socket, talk: Talk, own: str) -> str:
    """Say and hear everything; what went wrong, or nothing."""
    other = "server" if own == "client" else "client"
    chance = random.Random(f"{talk.seed} {own} pieces")
    hearing = asyncio.ensure_future(hear(sock))
    wanted = talk.said(other)
    try:
        if talk.ending == other:
            # Both speak, and the other one closes first.
            await asyncio.gather(say(sock, talk.said(own), chance), hearing)
        else:
            await say(sock, talk.said(own), chance)
        sock.shutdown(socket.SHUT_WR)
        heard, _ = await hearing
    finally:
        hearing.cancel()
    if hashlib.sha256(heard).digest() != hashlib.sha256(wanted).digest():
        return f"{own} heard {len(heard)} bytes, not the {len(wanted)} that were said"
    return ""


async def interrupt(sock: socket.socket, talk: Talk) -> str:
    """The client's part of a connection that it resets."""
    chance = random.Random(talk.seed)
    speaking = asyncio.ensure_future(say(sock, talk.said("client"), chance))
    await asyncio.sleep(chance.random() * 0.2)
    speaking.cancel()
    await asyncio.wait([speaking])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return ""


async def serve_one(sock: socket.socket, most: int) -> str:
    """The server's part."""
    loop, head = asyncio.get_running_loop(), b""
    while len(head) < _SEED.size:
        piece = await loop.sock_recv(sock, _SEED.size - len(head))
        if not piece:
            return "the client said nothing"
        head += piece
    talk = Talk.of(_SEED.unpack(head)[0], most)
    if talk.ending != "reset":
        return await converse(sock, talk, "server")
    hearing = asyncio.ensure_future(hear(sock))
    try:
        await asyncio.gather(say(sock, talk.said("server"), random.Random(1)), hearing)
    except OSError:
        return ""
    finally:
        hearing.cancel()
    return "a connection that was reset ended like any other"


async def serve(most: int) -> None:
    """The server: answers each tunnel's outcome on the next port."""
    outcomes: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    listener = _listen(PORT + 1)

    async def handle(sock: socket.socket) -> None:
        with sock:
            sock.setblocking(False)
            try:
                outcome = await asyncio.wait_for(serve_one(sock, most), TIMEOUT)
            except (OSError, TimeoutError) as error:
                outcome = f"server: {type(error).__name__}"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(outcomes).encode())
        writer.close()

    await asyncio.start_server(tell, None, PORT + 2)
    print("serving", flush=True)
    tasks: set[asyncio.Task[None]] = set()
    while True:
        sock, _ = await loop.sock_accept(listener)
        task = loop.create_task(handle(sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    listener.setblocking(False)
    return listener


async def tunnel(address: str, seed: int, most: int) -> str:
    """The client's part of one tunnel."""
    loop = asyncio.get_running_loop()
    talk = Talk.of(seed, most)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (address, PORT))
        await loop.sock_sendall(sock, _SEED.pack(seed))
        if talk.ending == "reset":
            return await interrupt(sock, talk)
        return await converse(sock, talk, "client")


async def ask(addresses: list[str], first: int, count: int, at_once: int, most: int) -> None:
    """The client: that many tunnels with seeds from `first` on, to each address in turn."""
    limit = asyncio.Semaphore(at_once)
    wrong: dict[int, str] = {}

    async def one(seed: int) -> None:
        async with limit:
            try:
                outcome = await asyncio.wait_for(
                    tunnel(addresses[seed % len(addresses)], seed, most), TIMEOUT
                )
            except (OSError, TimeoutError) as error:
                outcome = f"client: {type(error).__name__} {error}"
            if outcome:
                wrong[seed] = f"{outcome}; {Talk.of(seed, most)}"
                print(seed, wrong[seed], flush=True)

    await asyncio.gather(*(one(seed) for seed in range(first, first + count)))
    print("DONE", json.dumps({"tunnels": count, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(ask(sys.argv[2].split(","), *map(int, sys.argv[3:7])))
