"""Bytes between two connected TCP sockets, until both sides are done.

Each direction is a pump of its own: what is read from one socket is written to the other at once. What the
other does not take is kept, at most one read of it, and no more is read until it is gone: the reader's TCP
window closes and the sender waits, which is all the back-pressure there is. FIN passes in each direction by
itself (RFC 9293 section 3.6: a side that has sent everything may still receive), RST ends both.
"""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from marchproxy.dataplane.proxy.ledger import Conversation, Tally
from marchproxy.dataplane.proxy.sockets import reset
from marchproxy.dataplane.records import FlowState
from marchproxy.model.reason import Reason

READ_SIZE = 128 * 1024
"""Bytes of one read, and the most that a direction ever holds. Half of it carried a bulk stream a quarter
slower, twice was no faster."""

_scratch = memoryview(bytearray(READ_SIZE))
"""Where every read goes first. One is enough: it is read and written before anything else can run."""


class Pump:
    """One direction: from `source` to `sink`."""

    __slots__ = ("_held", "_loop", "_relay", "_sink", "_source", "_tally", "done")

    def __init__(self, relay: "Relay", source: socket.socket, sink: socket.socket, tally: Tally) -> None:
        self.done = False
        """FIN has been passed on."""
        self._relay = relay
        self._source = source
        self._sink = sink
        self._tally = tally
        self._held = memoryview(b"")
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(self._source, self._readable)

    def stop(self) -> None:
        """Leave the sockets alone: required before they are closed."""
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)

    def _readable(self) -> None:
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
        self._relay.conversation.carry(self._tally, size)
        left = self._write(_scratch[:size])
        if left:
            self._held = memoryview(bytes(left))
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._writable)

    def _writable(self) -> None:
        self._held = self._write(self._held)
        if not self._held and not self._relay.ended:
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._readable)

    def _write(self, data: memoryview) -> memoryview:
        """What the sink did not take of `data`."""
        try:
            return data[self._sink.send(data) :]
        except (BlockingIOError, InterruptedError):
            return data
        except OSError:
            self._relay.end(Reason.RESET)
            return data[len(data) :]

    def _finish(self) -> None:
        # Nothing is held here: while something is, nobody reads.
        self._loop.remove_reader(self._source)
        self.done = True
        # ENOTCONN: the sink was reset meanwhile, which its own pump is about to find out.
        with suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._relay.finished()


class Relay:
    """Two pumps back to back. `on_end` is called once, with CLOSED, RESET, or what `end` was given."""

    __slots__ = ("_client", "_on_end", "_pumps", "_upstream", "conversation", "ended")

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        conversation: Conversation,
        on_end: Callable[[Reason], None],
    ) -> None:
        """Take over two connected, non-blocking sockets."""
        self.conversation = conversation
        self.ended = False
        self._client = client
        self._upstream = upstream
        self._on_end = on_end
        self._pumps = (
            Pump(self, client, upstream, conversation.sent),
            Pump(self, upstream, client, conversation.received),
        )

    def start(self) -> None:
        """Begin to relay."""
        for pump in self._pumps:
            pump.start()

    def finished(self) -> None:
        """A pump has passed FIN on; after the second one the conversation is over."""
        self.conversation.state = FlowState.CLOSING
        if all(pump.done for pump in self._pumps):
            self.end(Reason.CLOSED)

    def end(self, reason: Reason) -> None:
        """Close both sides: in peace for CLOSED, with RST for everything else."""
        if self.ended:
            return
        self.ended = True
        for pump in self._pumps:
            pump.stop()
        for sock in (self._client, self._upstream):
            if reason is Reason.CLOSED:
                sock.close()
            else:
                reset(sock)
        self._on_end(reason)
