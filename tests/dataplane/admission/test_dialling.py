"""Happy eyeballs: the first that answers, families in turn."""

import asyncio
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.admission.dialling import MOST, dial, interleaved
from marchproxy.dataplane.admission.limits import AdmissionLimits
from marchproxy.model.address import IPAddress
from tests.dataplane.loops import looped

LIMITS = AdmissionLimits(connections=9, per_source=9, each=0.6, stagger=0.05)
FOR_EVER = 3600.0
"""Seconds that no test outlives: whoever waits for their end fails it."""
SILENT, DEAD, ALIVE, LATE = map(ip_address, ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"))


class World:
    """Hosts that answer, refuse, say nothing, or answer in the moment in which another has."""

    def __init__(self) -> None:
        self.tried: list[IPAddress] = []
        self.opened: list[socket.socket] = []
        self._met = asyncio.Event()

    async def connect(self, address: IPAddress, port: int, until: float | None) -> socket.socket:
        self.tried.append(address)
        if address == SILENT:
            async with asyncio.timeout_at(until):
                await asyncio.Event().wait()
        if address == DEAD:
            raise ConnectionRefusedError
        if address == LATE:
            await self._met.wait()
        self.opened.append(socket.socket())
        self._met.set()
        return self.opened[-1]


@looped
async def test_a_silent_address_does_not_hold_up_the_next() -> None:
    world, patient = World(), replace(LIMITS, each=FOR_EVER, opening=FOR_EVER)
    address, upstream = await dial([SILENT, ALIVE], 80, patient, world.connect)
    assert (address, world.tried) == (ALIVE, [SILENT, ALIVE])
    upstream.close()


@looped
async def test_a_refusal_is_followed_at_once() -> None:
    world, patient = World(), replace(LIMITS, stagger=FOR_EVER)
    address, upstream = await dial([DEAD, DEAD, ALIVE], 80, patient, world.connect)
    assert address == ALIVE
    upstream.close()


@looped
async def test_the_connections_of_losers_are_closed() -> None:
    world = World()
    _, upstream = await dial([LATE, ALIVE], 80, LIMITS, world.connect)
    assert sorted(each.fileno() >= 0 for each in world.opened) == [False, True]
    upstream.close()


@pytest.mark.parametrize(
    ("addresses", "error"), [([DEAD], ConnectionRefusedError), ([SILENT], TimeoutError), ([], TimeoutError)]
)
@looped
async def test_the_last_failure_is_told(addresses: list[IPAddress], error: type[OSError]) -> None:
    with pytest.raises(error):
        await dial(addresses, 80, LIMITS, World().connect)


def test_families_take_turns_with_ipv6_first() -> None:
    four = [ip_address(f"192.0.2.{number}") for number in (1, 2, 3)]
    six = [ip_address("2001:db8::1")]
    assert interleaved([*four, *six]) == [six[0], four[0], four[1], four[2]]
    assert len(interleaved(ip_address(f"192.0.2.{number}") for number in range(100))) == MOST
