"""A tunnel that drains, with every packet through the programs and any of them lost, doubled or overtaken.

What the two ends are is in `drainmodel`. Whatever the order: nobody gets a byte that was not sent, or hears
of one that is not there, and once the network is kind both streams arrive whole and the flow ends.
"""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.splices import Side, Splice
from marchproxy.model.reason import Reason
from tests.bpf.bed import FROM_CLIENT, FROM_SERVER, Action, Bed, Tier, flow_key
from tests.bpf.drainmodel import SEGMENT, WINDOW, WORD, Local, Peer, Piece
from tests.bpf.packets import Packet, Tcp, packet
from tests.bpf.reading import read
from tests.bpf.talk import joined_entry
from tests.examples import examples

pytestmark = pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs")

EXAMPLES, STEPS = 15, 50
PLACE, ID = 5, 77
PATIENCE = 200
"""Rounds in which everybody sends all that may be sent."""
CONTENT = {"client": bytes(range(256)) * 48, "server": bytes(range(255, -1, -1)) * 48}
"""By who sends it: as much as `TOTAL`, and more."""
FIRST = {
    ("client", "client"): WORD - 3000,
    ("client", "server"): 1_000_000,
    ("server", "server"): WORD - 1,
    ("server", "client"): 7,
}
"""The number of a stream's first byte, by its sender and by whose connection: two of them wrap."""
OTHER = {"client": "server", "server": "client"}
PEERS = st.sampled_from(("client", "server"))
OFFSETS = st.integers(0, WINDOW // 2)


class Drain(RuleBasedStateMachine):
    """Peers, sockets and network beside the programs."""

    bed: Bed
    tier: Tier

    @initialize(
        relayed=st.tuples(OFFSETS, OFFSETS),
        unread=st.tuples(OFFSETS, OFFSETS),
        heard=st.tuples(OFFSETS, OFFSETS),
    )
    def hand_off(self, relayed: tuple[int, int], unread: tuple[int, int], heard: tuple[int, int]) -> None:
        """Of each peer so much was relayed and so much waits to be; of that so much was acknowledged."""
        self.peers = {name: Peer(name) for name in OTHER}
        self.locals: dict[str, Local] = {}
        for name, done, more in zip(OTHER, relayed, unread, strict=True):
            peer = self.peers[name]
            peer.sent = peer.unacknowledged = done + more
            peer.edge = peer.sent + WINDOW
            self.locals[name] = Local(received=done + more, read=done, unacknowledged=0, sent=0)
        for name, known in zip(OTHER, heard, strict=True):
            local = self.locals[name]
            local.sent = self.locals[OTHER[name]].read
            local.unacknowledged = min(known, local.sent)
            self.peers[name].received = local.unacknowledged
        self.draining = True
        self.network: list[tuple[str, Piece, bytes]] = []
        self.told = dict.fromkeys(OTHER, 0)
        self._enter()

    @rule(name=PEERS, again=st.booleans())
    def peer_sends(self, name: str, again: bool) -> None:
        """New bytes, or the first that nobody has acknowledged."""
        piece = self.peers[name].again() if again else self.peers[name].new()
        if piece:
            self._through_kernel(name, piece)

    @rule(name=PEERS)
    def peer_acknowledges(self, name: str) -> None:
        """Of its own accord."""
        self._through_kernel(name, self.peers[name].acknowledge())

    @rule(name=PEERS, count=st.integers(2, 20))
    def peers_run_ahead(self, name: str, count: int) -> None:
        """Much goes through the kernel while what the sockets have sent is still under way."""
        before = len(self.network)
        for _ in range(count):
            self.peer_sends(name, again=False)
            while len(self.network) > before:
                self._arrive(*self.network.pop())

    @precondition(lambda self: self.draining)
    @rule(name=PEERS, size=st.integers(1, WINDOW))
    def user_space_relays(self, name: str, size: int) -> None:
        """Something of what had come in from a peer before."""
        source, target = self.locals[name], self.locals[OTHER[name]]
        first = source.read
        source.read = target.sent = min(source.received, first + size)
        for start in range(first, target.sent, SEGMENT):
            piece = Piece(start, min(SEGMENT, target.sent - start), False, target.received, WINDOW)
            self._from_local(OTHER[name], piece)

    @precondition(lambda self: self.draining)
    @rule(name=PEERS)
    def socket_sends_again(self, name: str) -> None:
        """What its peer has not acknowledged."""
        piece = self.locals[name].again()
        if piece:
            self._from_local(name, piece)

    @precondition(lambda self: self.network)
    @rule(
        at=st.integers(0, 1 << 16), fate=st.sampled_from(("arrives", "arrives", "arrives", "lost", "doubled"))
    )
    def network_delivers(self, at: int, fate: str) -> None:
        """Any of what is under way."""
        to, piece, content = self.network.pop(at % len(self.network))
        if fate == "doubled":
            self.network.append((to, piece, content))
        if fate != "lost":
            self._arrive(to, piece, content)

    @precondition(lambda self: self.draining and all(local.is_empty for local in self.locals.values()))
    @rule()
    def draining_ends(self) -> None:
        """As `handoff.Draining` does it; both sockets are gone then."""
        held = bool(self._flags() & layouts.SPLICE_HELD)
        self._write(draining=False)
        self.draining = False
        if held:
            for name in OTHER:
                # What asks a peer is answered with what it has received.
                self._through_kernel(name, self.peers[name].acknowledge())

    @invariant()
    def nobody_is_told_of_more_than_there_is(self) -> None:
        """What a peer hears of has been received by the other, or by the socket that passes it on."""
        for name, peer in self.peers.items() if hasattr(self, "peers") else ():
            there = max(self.peers[OTHER[name]].received, self.locals[name].received)
            assert self.told[name] <= there, f"{name} was told of {self.told[name]} of {there}"
            assert peer.unacknowledged <= peer.sent

    def teardown(self) -> None:
        """The network is kind from now on: everything has to come to its end."""
        if not hasattr(self, "peers"):
            return
        for _ in range(PATIENCE):
            self._deliver_all()
            if all(peer.is_done for peer in self.peers.values()):
                break
            if self.draining and all(local.is_empty for local in self.locals.values()):
                self.draining_ends()
            for name in OTHER:
                if self.draining:
                    self.user_space_relays(name, WINDOW)
                    self.socket_sends_again(name)
                self.peer_sends(name, again=True)
                self.peer_sends(name, again=False)
                self.peer_acknowledges(name)
        assert all(peer.is_done for peer in self.peers.values()), f"stuck: {self.peers}, {self.locals}"
        for name in OTHER:
            self.peer_acknowledges(name)
        assert not self.bed.is_established(self._arriving("client", Piece(0, 0, False, 0, 0)))

    def _enter(self) -> None:
        for name in ("flows", "opening"):
            self.bed.maps[name].delete_many(list(self.bed.maps[name].keys()))
        nothing = Piece(0, 0, False, 0, 0)
        ends = [self._arriving(name, nothing) for name in OTHER]
        for (mine, other), flags in zip((ends, reversed(ends)), (0, layouts.FLAG_REPLY), strict=True):
            entry = joined_entry(other, flags | layouts.FLAG_SPLICED, ID, PLACE)
            self.bed.maps["flows"].set(flow_key(mine), entry)
        self._write(draining=True)
        self.bed.counters.difference()

    def _write(self, *, draining: bool) -> None:
        client, server = (self._side(name) for name in OTHER)
        splice = Splice(ID, client, server, draining)
        self.bed.maps["splices"].set(layouts.U32.pack(PLACE), splice.pack())

    def _side(self, name: str) -> Side:
        own, other = FIRST[name, name], FIRST[name, OTHER[name]]
        least = own + self.locals[name].received
        return Side((other - own) % WORD, 0, 0, 0, least % WORD, (least + WINDOW // 2) % WORD)

    def _flags(self) -> int:
        raw = self.bed.maps["splices"].get(layouts.U32.pack(PLACE)) or b""
        return int(layouts.SPLICE.pick("flags").unpack(raw)[0])

    def _arriving(self, name: str, piece: Piece) -> Packet:
        """What a peer sends, as it arrives."""
        content = CONTENT[name][piece.start : piece.start + piece.size]
        numbers: dict[str, Any] = {
            "flags": "FA" if piece.fin else "A",
            "sequence": (FIRST[name, name] + piece.start) % WORD,
            "acknowledgement": (FIRST[OTHER[name], name] + piece.heard) % WORD,
            "window": piece.window,
        }
        if name == "client":
            return packet(
                "10.1.0.2", "10.1.0.1", Tcp(40000, 443, payload=content, **numbers), link=FROM_CLIENT
            )
        return packet("10.2.0.2", "10.2.0.1", Tcp(8443, 5000, payload=content, **numbers), link=FROM_SERVER)

    def _through_kernel(self, name: str, piece: Piece) -> None:
        """A packet of a peer: to the other one, and while it drains to its own socket."""
        outcome = self.bed.send(self.tier, self._arriving(name, piece))
        local, to = self.locals[name], OTHER[name]
        # Stragglers of a flow that has ended are still translated.
        assert outcome.reason is Reason.HANDED_OFF
        if self.draining:
            local.hear(piece.heard)
            is_old = piece.start < piece.end <= local.received
            assert outcome.action is (Action.DROP if is_old else Action.REDIRECT)
            if is_old:
                # The socket has it, and says so.
                self._from_local(name, local.acknowledge())
                return
        sent = read(outcome.frame).packet
        assert sent is not None
        assert isinstance(sent.transport, Tcp)
        moved = Piece(
            self._offset(sent.transport.sequence, FIRST[name, to], piece.start),
            *(len(sent.transport.payload), "F" in sent.transport.flags),
            self._offset(sent.transport.acknowledgement, FIRST[to, to], piece.heard),
            sent.transport.window,
        )
        assert (moved.start, moved.end) == (piece.start, piece.end)
        self.network.append((to, moved, sent.transport.payload))

    def _offset(self, number: int, first: int, near: int) -> int:
        """The offset that a number stands for, which is not far from `near`."""
        found = (number - first - near) % WORD
        return near + (found - WORD if found >= WORD // 2 else found)

    def _from_local(self, name: str, piece: Piece) -> None:
        """A segment of the socket towards a peer."""
        self.network.append((name, piece, CONTENT[OTHER[name]][piece.start : piece.start + piece.size]))

    def _arrive(self, to: str, piece: Piece, content: bytes) -> None:
        wanted = CONTENT[OTHER[to]][piece.start : piece.start + piece.size]
        self.told[to] = max(self.told[to], piece.heard)
        self.peers[to].take(piece, content, wanted)
        if piece.end > piece.start:
            self._through_kernel(to, self.peers[to].acknowledge())

    def _deliver_all(self) -> None:
        while self.network:
            self._arrive(*self.network.pop(0))


def test_whatever_the_order_both_streams_arrive_whole(bed: Bed, tier: Tier) -> None:
    Drain.bed, Drain.tier = bed, tier
    tried = examples(EXAMPLES, stateful_step_count=STEPS)
    run_state_machine_as_test(Drain, settings=tried)
