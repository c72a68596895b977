"""Requests that need no exchange against the same that are exchanges: client, backend and counts see no
difference, whatever comes in whatever pieces and order.

Both connections are the appliance's own; what they speak through is made up, so that nothing depends on time.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from random import Random
from typing import Any, cast

from marchproxy.dataplane.admission.arrivals import Client
from marchproxy.dataplane.http.client import ClientConnection
from marchproxy.dataplane.http.listeners import HttpListeners
from marchproxy.dataplane.http.upstream import HIGH_WATER, Upstream
from marchproxy.dataplane.records import EventKind
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import Backend, Plan
from tests.dataplane.admission.desk import LIMITS, desk
from tests.dataplane.http.site import answer, get, routed
from tests.dataplane.loops import looped

type Step = Callable[["Play"], None]

SEEDS = 300
STEPS = 20
FULL = 1000
"""Bytes of which a connection is full."""
HERE = ip_address("127.0.0.1")
_ID = re.compile(rb"(?<=x-request-id: )[0-9a-f]{32}(?=\r\n)")
_LENGTH = re.compile(rb"content-length: ([0-9]+)\r\n")

USUAL = get()
ASKED = (
    *(get("/here/other"),) * 5,
    get("/here", "h.example", "x-request-id: mine"),
    get("/here", "h.example", "x-request-id: ???"),
    get("/here", "h.example", "te: trailers", "connection: te"),
    get("/here", "other.example"),
    get("/here", "h.example", "connection: close"),
    get("/here", "h.example", "connection: keep-alive", version="1.0"),
    get("/elsewhere"),
    USUAL.replace(b"GET", b"HEAD"),
    USUAL.replace(b"GET", b"OPTIONS"),
    get("/here", "h.example", "content-length: 5").replace(b"GET", b"POST") + b"hello",
    get("/here", "h.example", f"content-length: {len(USUAL)}").replace(b"GET", b"PUT") + USUAL,
    b"\r\n" + USUAL,
    b"nonsense\r\n\r\n",
)
COMMON = answer(b"usual")
ANSWERS = (
    answer(b"other"),
    answer(b"longer than it was"),
    answer(b""),
    answer(bytes(FULL)),
    answer(b"usual", "404 Not Found"),
    answer(b"usual", "503 Service Unavailable"),
    answer(b"usual", "200 OK", "connection: close"),
    COMMON.replace(b"/1.1", b"/1.0"),
    COMMON + b"more",
    COMMON * 2,
    COMMON[:-1],
    COMMON[:12],
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" + COMMON,
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nusual",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nusual\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nusu",
    b"HTTP/1.1 200 OK\r\n\r\nto its end",
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\nusual",
    b"nonsense\r\n\r\n",
)


class Wire:
    """The appliance's end of a connection, as `asyncio.Transport` is one."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.written = b""
        self.unsent = 0
        """What the other end does not take."""
        self.takes = True
        self.reads = True
        self.coming: list[bytes] = []
        """What was not read."""
        self.ends: str = ""
        self.full = self.closing = self.eof = self.lost = False
        protocol.connection_made(cast(asyncio.Transport, self))

    # ---- for the other end

    def give(self, data: bytes) -> None:
        """Send a piece."""
        self.coming.append(data)
        self._deliver()

    def end(self, how: str) -> None:
        """End one side (`eof`) or the connection."""
        self.ends = self.ends or how
        self._deliver()

    def take(self, *, takes: bool) -> None:
        """Take what was written, or nothing from here on."""
        self.takes = takes
        if takes:
            self.unsent = 0
            if self.full and not self.lost:
                self.full = False
                self.protocol.resume_writing()
            if self.closing:
                self._lose(None)

    # ---- for the appliance

    def write(self, data: bytes) -> None:
        assert not self.eof, "written after the end"
        if not data or self.closing:
            return
        self.written += data
        if not self.takes:
            self.unsent += len(data)
            if self.unsent > FULL and not self.full:
                self.full = True
                self.protocol.pause_writing()

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == HIGH_WATER

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True
        asyncio.get_running_loop().call_soon(self._deliver)

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.unsent:
                self._lose(None)

    def abort(self) -> None:
        self.closing = True
        self._lose(None)

    def _deliver(self) -> None:
        while self.coming and self.reads and not self.closing:
            self.protocol.data_received(self.coming.pop(0))
        if self.coming or not self.reads or self.closing:
            return
        if self.ends == "eof":
            self.ends = "over"
            if not self.protocol.eof_received():
                self.close()
        elif self.ends == "reset":
            self.closing = True
            self._lose(ConnectionResetError())

    def _lose(self, why: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, why)


@dataclass
class Play:
    """One client, and the connections to backends that are made for it."""

    listeners: HttpListeners
    port: int
    plans: tuple[Plan, Plan]
    """One that lets the client in, and one that does not."""
    lean: bool
    secure: bool
    client: ClientConnection = field(init=False)
    wire: Wire = field(init=False)
    backends: list[Wire] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    """Backends that have to answer, in the order of the requests."""
    asked: list[bytes] = field(default_factory=list)
    repeated: int = 0
    """Requests that were no exchanges."""
    _ids: dict[bytes, int] = field(default_factory=dict)
    _heard: list[int] = field(default_factory=list)
    """Bytes of what each backend has got that were looked at."""

    def __post_init__(self) -> None:
        self.site = self.listeners.site
        self.site.pool.connect = self._connect  # type: ignore[method-assign]
        self.site.care.circuits.known.clear()
        self.plan(0)
        self.want(told=False)
        before = self.site.ledger.counters()[Reason.FORWARDED]
        self._before = before.packets, before.bytes
        visitor = self.listeners._visitor(Client(HERE, 4711, HERE, self.port))
        visitor.alternative = b'h3=":443"; ma=1' if self.secure else b""
        assert self.listeners._gate.enter(HERE)
        self.client = self.listeners._http1(visitor, secure=self.secure)
        self.wire = Wire(self.client)

    async def _connect(self, backend: Backend) -> Upstream:
        made = Upstream(self.site.pool, backend, secure=False)
        self.site.pool._every.add(made)
        self.backends.append(Wire(made))
        self._heard.append(0)
        return made

    def want(self, *, told: bool) -> None:
        """Whether somebody is told of requests; always, where they shall be exchanges."""
        self.site.ledger.wanted = frozenset() if self.lean and not told else frozenset(EventKind)

    def plan(self, which: int) -> None:
        """Another one, from now on."""
        self.site.ledger.adopt(self.plans[which], 2)
        self.listeners.recheck()

    def answer(self, piece: bytes, *, last: bool) -> None:
        """A piece from the backend that has to answer first."""
        if self.due:
            self.backends[self.due[0]].give(piece)
            del self.due[:last]

    def of_backend(self, number: int) -> Wire:
        """One of the connections; before there is any, the client's."""
        return self.backends[number % len(self.backends)] if self.backends else self.wire

    async def settle(self) -> None:
        """Let everything happen that will; then take down what backends were asked."""
        for _ in range(8):
            await asyncio.sleep(0)
        for index, wire in enumerate(self.backends):
            begin = self._heard[index]
            while (end := wire.written.find(b"\r\n\r\n", begin) + 4) >= 4:
                length = _LENGTH.search(wire.written, begin, end)
                end += int(length[1]) if length else 0
                if len(wire.written) < end:
                    break
                self.asked.append(b"%d: %b" % (index, self._numbered(wire.written[begin:end])))
                begin = self._heard[index] = end
                self.due.append(index)

    def seen(self) -> dict[str, Any]:
        """All that must not differ."""
        client, idle = self.client, self.site.pool._idle.values()
        wires = self.wire, *self.backends
        return {
            "client": self._numbered(self.wire.written),
            "backends": list(self.asked),
            "wires": [(each.closing, each.eof, each.reads, each.full) for each in wires],
            "idle": [any(each.protocol in waiting for waiting in idle) for each in self.backends],
            "under way": client._repeats is not None or client._exchange is not None,
            "closing": client._closing,
            "held": bytes(client._held),
            "counted": () if client._repeats is not None else self._counted(),
        }

    def _numbered(self, said: bytes) -> bytes:
        """With ids by the order in which they came."""
        return _ID.sub(lambda found: b"%d" % self._ids.setdefault(found[0], len(self._ids)), said)

    def _counted(self) -> tuple[Any, ...]:
        now, live = self.site.ledger.counters()[Reason.FORWARDED], self.client.conversations
        total = now.packets - self._before[0], now.bytes - self._before[1]
        return total, *((each.name, each.sent.traffic(), each.received.traffic()) for each in live)

    async def play(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """What was seen after each step."""
        found = []
        for step in steps:
            self.repeated += self.client._repeats is not None
            step(self)
            await self.settle()
            found.append(self.seen())
        assert self.client.exchange is None or self.client._repeats is None
        found.append(self.seen())
        self.wire.end("reset")
        self.client.end()
        self.site.pool.close()
        await self.settle()
        found.append(self.seen())
        assert not self.listeners.live
        assert not self.listeners._gate.inside
        assert not self.site.pool._every
        return found


def _pieces(random: Random, data: bytes) -> list[bytes]:
    if random.random() < 0.8 or len(data) < 2:
        return [data]
    at = random.randrange(1, len(data))
    return [data[:at], data[at:]]


def _given(piece: bytes) -> Step:
    return lambda play: play.wire.give(piece)


def _answered(piece: bytes, *, last: bool) -> Step:
    return lambda play: play.answer(piece, last=last)


def _asking(random: Random, asked: bytes) -> list[Step]:
    if random.random() < 0.05:
        asked += random.choice((USUAL, *ASKED))
    return [_given(piece) for piece in _pieces(random, asked)]


def _answering(random: Random, said: bytes) -> list[Step]:
    *first, end = _pieces(random, said)
    return [*(_answered(piece, last=False) for piece in first), _answered(end, last=True)]


def _other(random: Random) -> list[Step]:
    flag, number, how = random.random() < 0.5, random.randrange(8), random.choice(("eof", "reset"))
    rare = random.random() < 0.3
    later = 1000.0 if rare else 0.0
    steps: list[Step] = [
        lambda play: play.wire.take(takes=flag),
        lambda play: play.of_backend(number).take(takes=flag),
        lambda play: play.of_backend(number).give(COMMON),
        lambda play: play.of_backend(number).end(how),
        lambda play: play.want(told=flag),
        lambda play: play.plan(rare and flag),
        lambda play: play.client.tick(play.client._since + later),
        lambda play: play.client.drain() if rare else None,
        lambda play: play.wire.end(how) if rare else None,
    ]
    return [random.choice(steps)]


def _at_once(one: Step, other: Step) -> Step:
    def both(play: Play) -> None:
        one(play)
        other(play)

    return both


def script(random: Random) -> list[Step]:
    """What happens, one after the other."""
    steps: list[Step] = []
    usual = random.choice(ASKED) if random.random() < 0.3 else USUAL
    common = random.choice(ANSWERS) if random.random() < 0.3 else COMMON
    for number in range(random.randrange(5, STEPS)):
        odd = random.random() if number > 1 else 1.0
        steps += _asking(random, random.choice(ASKED) if odd < 0.15 else usual)
        steps += _other(random) if 0.1 < odd < 0.3 else ()
        steps += _answering(random, random.choice(ANSWERS) if 0.25 < odd < 0.45 else common)
        steps += _other(random) if 0.4 < odd < 0.5 else ()
    # Some in the same turn of the loop, and some out of order.
    for at in range(len(steps) - 2, 0, -1):
        if random.random() < 0.05:
            steps[at : at + 2] = [_at_once(steps[at], steps[at + 1])]
        elif random.random() < 0.03:
            steps[at], steps[at + 1] = steps[at + 1], steps[at]
    return steps


async def differ(listeners: HttpListeners, port: int, plans: tuple[Plan, Plan], seeds: range) -> int:
    """Play these; the number of requests that were no exchanges."""
    repeated = 0
    for seed in seeds:
        steps, secure = script(Random(seed)), seed % 4 == 0
        expected = await Play(listeners, port, plans, False, secure).play(steps)
        lean = Play(listeners, port, plans, True, secure)
        found = await lean.play(steps)
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            counted = other["counted"] or one["counted"]
            assert one == other | {"counted": counted}, f"seed {seed}, step {number} of {len(steps)}"
        repeated += lean.repeated
    return repeated


@looped
async def test_no_difference_is_seen() -> None:
    async with desk(limits=replace(LIMITS, silence=500.0, keepalive=500.0, head=500.0)) as at:
        plans = routed(at, 80), routed(at, 80, action="deny")
        listeners = at.admission._reads_http()
        listeners.site.ledger._tally(Reason.FORWARDED)
        assert await differ(listeners, at.port, plans, range(SEEDS)) > SEEDS
