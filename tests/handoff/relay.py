"""A relay that hands its connections to the kernel at random moments; a program for the middle host.

It listens on a port, connects to a server for each client, copies what comes until a random number of bytes
has passed, and then tries a handoff until there is one, or never, or the connection is over. On SIGTERM it
prints what became of everything as one line of JSON.
"""

import asyncio
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from marchproxy.dataplane.kernel.backlog import limit_backlog
from marchproxy.dataplane.kernel.handoff import (
    Draining,
    Handoff,
    Progress,
    TunnelFacts,
    new_flow_id,
)
from marchproxy.dataplane.kernel.tier import KernelTier
from marchproxy.dataplane.kernel.tunnels import Tunnel
from marchproxy.dataplane.kernel.upstreamports import UpstreamPorts
from marchproxy.dataplane.records import Event, EventKind
from marchproxy.model.entities import Interface, Mode, Role
from marchproxy.policy.plan import Plan

PORT = 9000
PIECE = 32768
PAUSE = 0.001
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Report:
    """What the relay tells at its end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    ends: list[tuple[int, str, int, int, int, int]] = field(default_factory=list)
    """Flow-end events: id, reason, packets and bytes from the client, from the server."""
    moments: list[tuple[int, float, float]] = field(default_factory=list)
    """Of tunnels that went to the kernel: the client's port, and when it began and was done."""

    def hear(self, event: Event) -> None:
        """A fact of the tier."""
        if event.kind is EventKind.FLOW_END and event.flow:
            sent, received = event.flow.sent, event.flow.received
            self.ends.append(
                (
                    *(event.decision.id, event.decision.reason.name),
                    *(sent.packets, sent.bytes, received.packets, received.bytes),
                )
            )


class _Half:
    """One direction: what was read from a socket and waits for the other."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.pending = b""
        self.ended = False

    def move(self) -> int:
        """Bytes that went on, or -1 where nothing could be done."""
        if not self.pending and not self.ended:
            with suppress(BlockingIOError):
                self.pending = self.source.recv(PIECE)
                if not self.pending:
                    self.ended = True
                    self.target.shutdown(socket.SHUT_WR)
                    return 0
        if not self.pending:
            return -1
        try:
            count = self.target.send(self.pending)
        except BlockingIOError:
            return -1
        self.pending = self.pending[count:]
        return count


class Relay:
    """Copies, and hands off."""

    def __init__(
        self, handoff: Handoff, ports: UpstreamPorts, server: str, most: int, report: Report
    ) -> None:
        """At the latest after `most` bytes a handoff is tried; below zero: never."""
        self._handoff, self._ports = handoff, ports
        self._server = ip_address(server)
        self._most = most
        self._report = report

    async def serve(self, client: socket.socket) -> None:
        """One connection from beginning to end."""
        client.setblocking(False)
        try:
            upstream = await self._connect()
        except OSError:
            self._report.outcomes["unconnected"] += 1
            client.close()
            return
        for sock in (client, upstream):
            limit_backlog(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            outcome = await self._relay(client, upstream)
        except OSError:
            outcome = "reset"
            for sock in (client, upstream):
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.close()
        self._report.outcomes[outcome] += 1

    async def _connect(self) -> socket.socket:
        upstream = self._ports.open(self._server, PORT + 1)
        # A socket that connects is writable when it has, or has failed to.
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        loop.add_writer(upstream, done.set_result, None)
        try:
            await done
        finally:
            loop.remove_writer(upstream)
        if code := upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            upstream.close()
            raise OSError(code, os.strerror(code))
        return upstream

    async def _relay(self, client: socket.socket, upstream: socket.socket) -> str:
        halves = _Half(client, upstream), _Half(upstream, client)
        passed, threshold = 0, int(self._most * random.random() ** 4) if self._most >= 0 else None
        started = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        while not all(half.ended for half in halves):
            moved = [half.move() for half in halves]
            passed += sum(count for count in moved if count > 0)
            held = any(half.pending for half in halves)
            if threshold is not None and passed >= threshold and not held:
                facts = TunnelFacts(new_flow_id(), 1, 1, started, Tunnel("default/clients", "7", "example"))
                port, began = client.getpeername()[1], time.time()
                result = self._handoff.attempt(client, upstream, facts)
                if isinstance(result, Draining):
                    outcome = await self._drain(result)
                    self._report.moments.append((port, began, time.time()))
                    return outcome
                self._report.refusals[result.name] += 1
                if not result.passes:
                    threshold = None
            if max(moved) < 0:
                await asyncio.sleep(PAUSE)
            else:
                await asyncio.sleep(0)
        client.close()
        upstream.close()
        return "relayed"

    async def _drain(self, draining: Draining) -> str:
        while (progress := draining.advance()) is Progress.DRAINING:
            await asyncio.sleep(PAUSE)
        return str(progress.value)


async def _main(server: str, mode: str, most: int) -> None:
    report = Report()
    tier = KernelTier.create()
    await tier.start(report.hear)
    interfaces = (
        Interface("inside0", Role.INSIDE, Mode(mode)),
        Interface("outside0", Role.OUTSIDE, Mode(mode)),
    )
    await tier.apply(Plan(interfaces=interfaces), 1)
    relay = Relay(tier.handoff(), tier.upstream_ports(), server, most, report)
    listener = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    listener.setblocking(False)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    tasks: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            client, _ = await loop.sock_accept(listener)
            task = loop.create_task(relay.serve(client))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = loop.create_task(accept())
    print("relaying", flush=True)
    while not stop.is_set():
        await tier.poll()
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.25)
    accepting.cancel()
    # Both peers have their closes; over a bad link the last acknowledgements may still be on their way.
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            while tasks:
                await tier.poll()
                await asyncio.sleep(0.05)
    await tier.poll()
    counters = {reason.name: traffic.packets for reason, traffic in tier.counters().items()}
    flows = [flow.decision.reason.name for flow in await tier.flows(1 << 20)]
    told = {
        "open": len(tasks),
        "ends": report.ends,
        "moments": report.moments,
        "counters": counters,
        "flows": flows,
    }
    print(
        "REPORT", json.dumps({**told, "outcomes": report.outcomes, "refusals": report.refusals}), flush=True
    )
    await tier.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
