"""A relay whose client speaks TLS: what it sends is opened, what is sent to it sealed, all in user space.

Back-pressure is that of `relay`: while a sink has not taken what it was given, nothing is read for it. Held
are one read at most each way, and what OpenSSL has of a record that is not complete. close_notify and FIN
are one end, in both directions. A FIN of the client alone is passed on as a reset: whether everything came
before it, nobody can tell.
"""

import socket
from collections.abc import Callable

from marchproxy.dataplane.proxy.ledger import Conversation, Tally
from marchproxy.dataplane.proxy.protocol.exchange import Bound
from marchproxy.dataplane.proxy.protocol.secured import Secured
from marchproxy.dataplane.proxy.relay import Pump, Relay
from marchproxy.model.reason import Reason


class _SecurePump(Pump):
    """Copies: there is nothing to splice."""

    __slots__ = ("_secured",)

    def __init__(
        self, relay: Relay, source: socket.socket, sink: socket.socket, tally: Tally, secured: Secured
    ) -> None:
        super().__init__(relay, source, sink, tally)
        self._secured = secured

    def _readable(self) -> None:
        self._copy()


class _Opening(_SecurePump):
    """From the client."""

    __slots__ = ("opened",)

    opened: bytes
    """What was opened before this began, and goes on after what is ahead."""

    def start(self, ahead: bytes = b"") -> None:
        """See `Pump`."""
        super().start(ahead)
        self._go_on()

    def _pass(self, read: memoryview) -> None:
        try:
            opened = self._secured.open(read)
        except OSError:
            self._relay.end(Reason.RESET)
            return
        if opened:
            super()._pass(opened)
        self._go_on()

    def _writable(self) -> None:
        super()._writable()
        self._go_on()

    def _go_on(self) -> None:
        """Once the sink has all, see to what was opened early, and to the end that the client has said."""
        if self.opened and not (self._held or self._relay.ended):
            opened, self.opened = self.opened, b""
            super()._pass(memoryview(opened))
        if self._secured.ended and not (self._held or self.done or self._relay.ended):
            self._finish()

    def _finish(self) -> None:
        # Who has heard our own end owes us no more than a FIN.
        if self._secured.ended or self._secured.closed:
            super()._finish()
        else:
            self._relay.end(Reason.RESET)


class _Sealing(_SecurePump):
    """To the client."""

    __slots__ = ("_ending",)

    def __init__(
        self, relay: Relay, source: socket.socket, sink: socket.socket, tally: Tally, secured: Secured
    ) -> None:
        super().__init__(relay, source, sink, tally, secured)
        self._ending = False

    def _shaped(self, data: memoryview | bytes) -> memoryview | bytes:
        return self._secured.seal(data)

    def _finish(self) -> None:
        self._readiness.remove_reader(self._source)
        self._ending = True
        try:
            said = self._secured.close()
        except OSError:
            self._relay.end(Reason.RESET)
            return
        self._held = self._write(memoryview(said))
        self._say_end()

    def _writable(self) -> None:
        if not self._ending:
            super()._writable()
        elif isinstance(self._held, memoryview):
            self._held = self._write(self._held)
            self._say_end()

    def _say_end(self) -> None:
        """FIN, once the client's side has taken close_notify."""
        if self._relay.ended:
            return
        if self._held:
            self._readiness.add_writer(self._sink, self._writable)
        else:
            self._readiness.remove_writer(self._sink)
            super()._finish()


class SecureRelay(Relay):
    """See `Relay`; `opened` was read from the client already, and goes upstream behind what `start` is given.

    No kernel can take it over.
    """

    __slots__ = ("_opened", "_secured")

    joinable = False

    def __init__(
        self,
        client: socket.socket,
        secured: Secured,
        upstream: socket.socket,
        conversation: Conversation,
        on_end: Callable[[Reason], None],
        bound: Bound | None = None,
        opened: bytes = b"",
    ) -> None:
        self._secured = secured
        self._opened = opened
        super().__init__(client, upstream, conversation, on_end, bound)

    def _made(self) -> tuple[Pump, Pump]:
        sent, received = self.conversation.sent, self.conversation.received
        opening = _Opening(self, self.client, self.upstream, sent, self._secured)
        opening.opened = self._opened
        return opening, _Sealing(self, self.upstream, self.client, received, self._secured)
