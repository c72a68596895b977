"""The sockets that a plan's explicit proxies and admitted listeners need: opened, shared, kept, closed.

Whoever accepts from them, in this process or in another, is told which are new and which are wanted.
"""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from marchproxy.dataplane.admission.sharing import Sharing, runs
from marchproxy.dataplane.fdstore import DescriptorStore, store_name
from marchproxy.dataplane.proxy.sockets import expect_descriptors, expect_free, open_group, open_listener
from marchproxy.dataplane.quic.steering import steer
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.protocol import Transport
from marchproxy.policy.plan import WILDCARDS, Listener, ListenerKey, Plan, listener_key

type Together = Mapping[ListenerKey, Sequence[Listener]]
"""Listeners that share a socket, by the key of the first."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Sockets for a plan that is not in force yet."""

    wanted: Mapping[ListenerKey, Listener]
    """Every listener that has a socket of its own."""
    opened: Mapping[ListenerKey, socket.socket]
    """Those of them that were not open before."""
    inherited: frozenset[ListenerKey] = frozenset()
    """Those of `opened` that an earlier daemon has opened."""
    together: Together = field(default_factory=dict)
    groups: Mapping[ListenerKey, Sequence[socket.socket]] = field(default_factory=dict)
    """Of those of `opened` where QUIC is spoken, one socket for each process."""


class ListeningSockets:
    """Those that are open. `store` keeps them for the next daemon, `sharing` lets one serve many ports."""

    def __init__(
        self,
        sharing: Sharing | None = None,
        store: DescriptorStore | None = None,
        diverted: Callable[[], Sequence[socket.socket]] = tuple,
        processes: int = 1,
    ) -> None:
        """`diverted`: the sockets to which the tier brings what passes through, see `passing`; `processes`:
        how many serve them.
        """
        self.held: dict[ListenerKey, socket.socket] = {}
        self.unserved = ""
        """Why those that share a socket are not served; empty: they are."""
        self._sharing = sharing
        self._store = store
        self._diverted = diverted
        self._processes = processes
        self._groups: dict[ListenerKey, Sequence[socket.socket]] = {}
        self._names: dict[ListenerKey, str] = {}
        self._together: Together = {}

    def open(self, plan: Plan) -> Opening:
        """Open what `plan` needs and is not open. Raises `MarchproxyError`, and nothing has changed.

        `take` or `abandon` must follow.
        """
        wanted = wanted_by(plan)
        together = self._gather(plan, wanted)
        followers = {item.key: item for others in together.values() for item in others[1:]}
        wanted = {key: item for key, item in wanted.items() if key not in followers}
        expect_descriptors(len(wanted))
        for key in followers.keys() - self._served():
            expect_free(followers[key])
        new = {key: listener for key, listener in wanted.items() if key not in self.held}
        opened = self._inherited(new.values())
        inherited = frozenset(opened)
        groups: dict[ListenerKey, Sequence[socket.socket]] = {}
        try:
            for key, listener in new.items():
                if listener.transport is Transport.UDP:
                    groups[key] = self._open_group(listener)
                    opened[key] = groups[key][0]
                elif key not in inherited:
                    opened[key] = open_listener(listener)
        except BaseException:
            self.abandon(Opening(wanted, opened, inherited, groups=groups))
            raise
        return Opening(wanted, opened, inherited, together, groups)

    def abandon(self, opening: Opening) -> None:
        """The plan does not come into force. What was inherited is there for the next one."""
        for key, sock in opening.opened.items():
            if self._store and key in opening.inherited:
                self._store.give_back(_name(opening.wanted[key]), sock)
            else:
                sock.close()
        for others in opening.groups.values():
            _close(others)

    def of_process(self, key: ListenerKey, index: int) -> socket.socket:
        """The socket that process `index` serves."""
        return self._groups[key][index] if key in self._groups else self.held[key]

    def take(self, opening: Opening) -> tuple[frozenset[ListenerKey], Mapping[ListenerKey, socket.socket]]:
        """The plan is in force: what is wanted by it, and what of that is new."""
        for key, sock in opening.opened.items():
            self._keep(opening.wanted[key], sock)
        diverted = {_key(sock): sock for sock in self._diverted()}
        more = {key: sock.dup() for key, sock in diverted.items() if key not in self.held}
        opened = {**opening.opened, **more}
        self.held.update(opened)
        self._groups.update(opening.groups)
        self._share(opening.together)
        return frozenset({*opening.wanted, *diverted}), opened

    def close_others(self, wanted: frozenset[ListenerKey]) -> None:
        """The plan is in force: close what is not `wanted`, inherited sockets included."""
        for key in self.held.keys() - wanted:
            self.held.pop(key).close()
            _close(self._groups.pop(key, ()))
            name = self._names.pop(key, None)
            if self._store and name:
                self._store.release(name)
        if self._store:
            self._store.close()

    def is_kept(self, key: ListenerKey) -> bool:
        """Whether the next daemon is going to accept who waits in it."""
        name = self._names.get(key)
        return bool(self._store and name and self._store.holds(name))

    def close(self) -> None:
        """Close all. What is kept for the next daemon stays with whoever keeps it."""
        while self.held:
            self.held.popitem()[1].close()
        while self._groups:
            _close(self._groups.popitem()[1])
        if self._sharing:
            self._sharing.close()

    def _open_group(self, listener: Listener) -> Sequence[socket.socket]:
        """They are not kept for the next daemon: connections end with the processes that know their keys."""
        group = open_group(listener, self._processes)
        if self._processes > 1:
            try:
                steer(group[0], self._processes)
            except OSError as error:
                _close(group)
                raise MarchproxyError(f"listener {listener}: {error.strerror}") from error
        return group

    def _gather(self, plan: Plan, wanted: Mapping[ListenerKey, Listener]) -> Together:
        if self._sharing is None:
            return {}
        explicit = explicit_listeners(plan)
        admitted = [item for item in wanted.values() if item.transport is Transport.TCP]
        found = runs(item for item in admitted if item.key not in explicit)
        return {each[0].key: each for each in found} if found and self._sharing.ready() else {}

    def _served(self) -> set[ListenerKey]:
        """Where we listen."""
        return {*self.held, *(item.key for others in self._together.values() for item in others)}

    def _share(self, together: Together) -> None:
        self._together, self.unserved = together, ""
        if self._sharing is None:
            return
        try:
            self._sharing.settle([(self.held[key], others) for key, others in together.items()])
        except MarchproxyError as error:
            self.unserved = f"listeners that share a socket: {error.message}"

    def _inherited(self, listeners: Iterable[Listener]) -> dict[ListenerKey, socket.socket]:
        if self._store is None:
            return {}
        kept = (listener for listener in listeners if listener.transport is Transport.TCP)
        found = ((listener.key, self._store.take(_name(listener))) for listener in kept)
        return {key: sock for key, sock in found if sock is not None}

    def _keep(self, listener: Listener, sock: socket.socket) -> None:
        if self._store and listener.transport is Transport.TCP:
            self._names[listener.key] = _name(listener)
            self._store.keep(_name(listener), sock)


class Adopting(Protocol):
    """Takes a plan over, and accepts from its sockets."""

    def adopt(
        self,
        plan: Plan,
        revision: int,
        wanted: frozenset[ListenerKey],
        opened: Mapping[ListenerKey, socket.socket],
    ) -> None:
        """Decide by `plan`, serve `opened`, leave alone what is not `wanted`."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan whose sockets are open and not yet served."""

    taker: Adopting
    sockets: ListeningSockets
    plan: Plan
    opening: Opening

    def commit(self, revision: int) -> None:
        """The tier has taken the plan over: so does admission."""
        wanted, opened = self.sockets.take(self.opening)
        self.taker.adopt(self.plan, revision, wanted, opened)
        self.sockets.close_others(wanted)

    def abandon(self) -> None:
        """The tier has refused."""
        self.sockets.abandon(self.opening)


def explicit_listeners(plan: Plan) -> Mapping[ListenerKey, Listener]:
    """Where the plan's explicit proxies listen."""
    every = [
        Listener(address, bind.port, Transport.TCP, ())
        for bind in plan.explicit
        for address in (WILDCARDS.values() if bind.address is None else (bind.address,))
    ]
    return {listener.key: listener for listener in every}


def http3_listeners(plan: Plan) -> Mapping[ListenerKey, Listener]:
    """Where HTTP/3 is spoken, over UDP."""
    spoken = (item for item in plan.listeners if item.key in plan.http3)
    every = [Listener(item.address, item.port, Transport.UDP, ()) for item in spoken]
    return {listener.key: listener for listener in every}


def wanted_by(plan: Plan) -> dict[ListenerKey, Listener]:
    """The listeners that need a socket; one of a single address does not where its wildcard has one."""
    every = dict(explicit_listeners(plan))
    if plan.admitted:
        every |= {item.key: item for item in plan.listeners if item.key in plan.admitted}
    if plan.http3:
        every |= http3_listeners(plan)
    return {key: item for key, item in every.items() if not key.address or _port(key) not in every}


def _close(socks: Iterable[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def _port(key: ListenerKey) -> ListenerKey:
    """The same port of every address."""
    return key._replace(address=0)


def _key(sock: socket.socket) -> ListenerKey:
    """Of a socket at loopback, where no listener of a plan that needs one can be."""
    address, port = sock.getsockname()[:2]
    return listener_key(Transport.TCP, ip_address(address), port)


def _name(listener: Listener) -> str:
    return store_name(listener.transport, listener.address, listener.port)
