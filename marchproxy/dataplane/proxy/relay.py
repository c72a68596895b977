"""Bytes between two connected TCP sockets, until both sides are done.

Each direction is a pump of its own: what one socket has is spliced into a pipe and on into the other at once.
What the other does not take stays in the pipe, and no more is read until it is gone: the reader's TCP window
closes and the sender waits, which is all the back-pressure there is. FIN passes in each direction by itself
(RFC 9293 section 3.6: a side that has sent everything may still receive), RST ends both.

Few bytes are copied instead, which costs less; and so is everything where no pipe is to be had, or where
somebody has to look at the bytes (`Bound`).
"""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from marchproxy.dataplane.proxy.ledger import Conversation, Tally
from marchproxy.dataplane.proxy.pipes import PIPE_SIZE, PIPES, Pipe
from marchproxy.dataplane.proxy.protocol.exchange import Bound, Unfit
from marchproxy.dataplane.proxy.readiness import readiness
from marchproxy.dataplane.proxy.sockets import reset
from marchproxy.dataplane.records import FlowState
from marchproxy.model.reason import Reason

READ_SIZE = 128 * 1024
"""Bytes that are copied at once."""

LEAST = 1024
"""Bytes that a read counts as at least where it matters how much was carried: few cost as much as many."""

BULK = 16 * 1024
"""Bytes read at once, from which on the next are spliced."""

_scratch = memoryview(bytearray(READ_SIZE))
"""Where what is copied goes first. One is enough: it is read and written before anything else can run."""
_SPLICING = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE

type Look = Callable[[memoryview], memoryview | bytes]
"""Sees bytes before they go on, and says which of them do. Raises `Unfit`."""


class Pump:
    """One direction: from `source` to `sink`."""

    __slots__ = (
        "_bulk",
        "_held",
        "_pipe",
        "_readiness",
        "_relay",
        "_sink",
        "_source",
        "_tally",
        "done",
        "look",
    )

    def __init__(self, relay: "Relay", source: socket.socket, sink: socket.socket, tally: Tally) -> None:
        self.done = False
        """FIN has been passed on."""
        self.look: Look | None = None
        self._relay = relay
        self._source = source
        self._sink = sink
        self._tally = tally
        self._held: memoryview | int = 0
        """What the sink has not taken: bytes of ours, or how many are in `_pipe`."""
        self._pipe: Pipe | None = None
        self._bulk = False
        """Whether what was read last was much."""
        self._readiness = relay.readiness

    @property
    def holds(self) -> bool:
        """Whether bytes are here that were read and not yet written."""
        return bool(self._held)

    def start(self, ahead: bytes = b"") -> None:
        """Begin to read, after writing `ahead`."""
        if ahead:
            self._relay.carry(self._tally, len(ahead))
            self._held = self._write(memoryview(ahead))
        if self._relay.ended:
            return
        if self._held:
            self._readiness.add_writer(self._sink, self._writable)
        elif not self.done:
            self._readiness.add_reader(self._source, self._readable)

    def close(self) -> None:
        """Give back what it holds."""
        if self._pipe:
            PIPES.give_back(self._pipe, empty=False)
            self._pipe = None

    def _readable(self) -> None:
        pipe = PIPES.take() if self._bulk and not self.look else None
        if pipe:
            self._splice(pipe)
        else:
            self._copy()

    def _splice(self, pipe: Pipe) -> None:
        try:
            size = os.splice(self._source.fileno(), pipe.into, PIPE_SIZE, flags=_SPLICING)
        except (BlockingIOError, InterruptedError):
            PIPES.give_back(pipe)
            return
        except OSError:
            PIPES.give_back(pipe)
            self._relay.end(Reason.RESET)
            return
        if not size:
            PIPES.give_back(pipe)
            self._finish()
            return
        self._bulk = size >= BULK
        self._relay.carry(self._tally, size)
        self._pipe = pipe
        self._held = size
        self._empty(pipe, size)
        if self._held and not self._relay.ended:
            self._wait()

    def _empty(self, pipe: Pipe, size: int) -> None:
        """Write what the pipe has, and give it back if that was all."""
        try:
            while size:
                size -= os.splice(pipe.out, self._sink.fileno(), size, flags=_SPLICING)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._relay.end(Reason.RESET)
            return
        self._held = size
        if not size:
            self._pipe = None
            PIPES.give_back(pipe)

    def _copy(self) -> None:
        try:
            size = self._source.recv_into(_scratch)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._relay.end(Reason.RESET)
            return
        if not size:
            self._finish()
            return
        self._bulk = size >= BULK
        self._pass(_scratch[:size])

    def _pass(self, read: memoryview) -> None:
        """Write on what was read, as far as somebody who looks lets it."""
        data: memoryview | bytes = read
        if self.look:
            try:
                data = self.look(read)
            except Unfit as unfit:
                self._relay.end(unfit.reason)
                return
        self._relay.carry(self._tally, len(data))
        left = self._write(memoryview(self._shaped(data)))
        if left:
            self._held = memoryview(bytes(left))
            self._wait()

    def _shaped(self, data: memoryview | bytes) -> memoryview | bytes:
        """What is written for `data`."""
        return data

    def _wait(self) -> None:
        self._readiness.remove_reader(self._source)
        self._readiness.add_writer(self._sink, self._writable)

    def _writable(self) -> None:
        if self._pipe and isinstance(self._held, int):
            self._empty(self._pipe, self._held)
        elif isinstance(self._held, memoryview):
            self._held = self._write(self._held)
        if not self._held and not self._relay.ended:
            self._readiness.remove_writer(self._sink)
            self._readiness.add_reader(self._source, self._readable)
            self._relay.settle()

    def _write(self, data: memoryview) -> memoryview:
        """What the sink did not take of `data`."""
        try:
            return data[self._sink.send(data) :] if data else data
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:
            self._relay.end(Reason.RESET)
            return data[len(data) :]

    def _finish(self) -> None:
        # Nothing is held here: while something is, nobody reads.
        self._readiness.remove_reader(self._source)
        self.done = True
        if self._relay.finished():
            return
        # ENOTCONN: the sink was reset meanwhile, which its own pump is about to find out.
        with suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)


class Relay:
    """Two pumps back to back. `on_end` is called once, with CLOSED, RESET, or what `end` was given."""

    joinable = True
    """Whether both connections carry the same bytes, so that the kernel could join them."""

    __slots__ = (
        *("_bound", "_left", "_on_end", "_pumps", "_ripe", "_then"),
        *("client", "conversation", "ended", "readiness", "upstream"),
    )

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        conversation: Conversation,
        on_end: Callable[[Reason], None],
        bound: Bound | None = None,
    ) -> None:
        """Take over two connected, non-blocking sockets. `bound` limits what the client may send."""
        self.conversation = conversation
        self.ended = False
        self.client = client
        self.upstream = upstream
        self.readiness = readiness()
        self._bound = bound
        self._then: Callable[[], None] | None = None
        self._left = 0
        self._ripe: Callable[[], None] | None = None
        self._on_end = on_end
        self._pumps: tuple[Pump, ...] = self._made()
        if bound:
            self._pumps[0].look = self._asked
            self._pumps[1].look = self._answered

    def _made(self) -> "tuple[Pump, Pump]":
        """From the client, and to it."""
        return (
            Pump(self, self.client, self.upstream, self.conversation.sent),
            Pump(self, self.upstream, self.client, self.conversation.received),
        )

    def start(self, ahead: bytes = b"") -> None:
        """Begin to relay; `ahead` goes upstream before everything else."""
        self._pumps[0].start(ahead)
        if not self.ended:
            self._pumps[1].start()

    def when_carried(self, size: int, then: Callable[[], None]) -> None:
        """Call `then` once, soon after so many more bytes have been carried, by reads of `LEAST` at least."""
        self._left, self._ripe = size, then

    def carry(self, tally: Tally, size: int) -> None:
        """Count bytes. For pumps."""
        self.conversation.carry(tally, size)
        if self._ripe is not None:
            self._left -= max(size, LEAST)
            if self._left <= 0:
                # Not at once: the pump still has what it counts.
                then, self._ripe = self._ripe, None
                asyncio.get_running_loop().call_soon(then)

    def when_quiet(self, then: Callable[[], None]) -> None:
        """Stop as soon as no byte is held here, and call `then`: it calls `start`, `leave` or `end`.

        The last one asked for is called, and none once it has ended.
        """
        self._then = then
        self.settle()

    def settle(self) -> None:
        """See whether now is the moment. For pumps, whenever they have got rid of what they held."""
        if self._then is None or self.ended or self._bound or any(pump.holds for pump in self._pumps):
            return
        then, self._then = self._then, None
        self._stop()
        then()

    def finished(self) -> bool:
        """Whether a pump that has come to FIN was the second one: then the conversation is over, and closing
        the sockets passes it on.
        """
        self.conversation.state = FlowState.CLOSING
        if all(pump.done for pump in self._pumps):
            self.end(Reason.CLOSED)
        return self.ended

    def end(self, reason: Reason) -> None:
        """Close both sides: in peace for CLOSED, with RST for everything else."""
        if self.ended:
            return
        self.ended = True
        self._stop()
        for pump in self._pumps:
            pump.close()
        for sock in (self.client, self.upstream):
            if reason is Reason.CLOSED:
                sock.close()
            else:
                reset(sock)
        on_end = self._on_end
        self._forget()
        on_end(reason)

    def leave(self) -> None:
        """Give the sockets up as they are, paused: they are somebody else's now. Nobody is told."""
        self.ended = True
        self._stop()
        self._forget()

    def _stop(self) -> None:
        """Leave the sockets alone: required before they are closed."""
        self.readiness.forget(self.client)
        self.readiness.forget(self.upstream)

    def _forget(self) -> None:
        """Leave no cycle behind: the collector may not look at what was alive when it was last frozen."""
        for pump in self._pumps:
            pump.look = None
        self._pumps = ()
        self._then = None
        self._ripe = None
        self._on_end = _nothing

    def _asked(self, data: memoryview) -> memoryview | bytes:
        if self._bound is None:
            return data
        return self._bound.take(bytes(data)) if not self._is_free() else data

    def _answered(self, data: memoryview) -> memoryview:
        if self._bound:
            self._bound.answered(bytes(data))
            self._is_free()
        return data

    def _is_free(self) -> bool:
        """Whether nobody needs to look any more; from then on bytes are spliced."""
        if self._bound and self._bound.free:
            self._bound = None
            for pump in self._pumps:
                pump.look = None
        return self._bound is None


def _nothing(reason: Reason) -> None:
    """Nobody waits for its end."""
