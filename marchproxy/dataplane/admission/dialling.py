"""Happy eyeballs (RFC 8305): the first of several addresses that answers, without waiting for those that do
not.
"""

import asyncio
import math
import socket
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest

from marchproxy.dataplane.admission.limits import AdmissionLimits
from marchproxy.dataplane.proxy.connecting import Connect, connect
from marchproxy.model.address import IPAddress

MOST = 16
"""Addresses of one name that are tried."""


def interleaved(addresses: Iterable[IPAddress]) -> Sequence[IPAddress]:
    """IPv6 and IPv4 in turn, IPv6 first (section 4), each in the order that was answered."""
    every = list(addresses)
    six, four = ([each for each in every if each.version == version] for version in (6, 4))
    pairs = chain.from_iterable(zip_longest(six, four))
    return [each for each in pairs if each is not None][:MOST]


async def dial(
    addresses: Sequence[IPAddress],
    port: int,
    limits: AdmissionLimits,
    connecting: Connect = connect,
    until: float = math.inf,
) -> tuple[IPAddress, socket.socket]:
    """The first of `addresses` that answers until then by the loop's clock, and the connection.

    Raises the `OSError` of the last to fail.
    """
    if len(addresses) == 1:
        # No race, no task: most names have one address, and most clients ask for one.
        return await _attempt(addresses[0], port, limits, connecting, until)
    attempts: set[asyncio.Task[tuple[IPAddress, socket.socket]]] = set()
    waiting = iter(addresses)
    error: OSError = TimeoutError()
    try:
        while True:
            following = next(waiting, None)
            if following is not None:
                attempt = _attempt(following, port, limits, connecting, until)
                attempts.add(asyncio.create_task(attempt, name="dial"))
            if not attempts:
                raise error
            done, attempts = await asyncio.wait(
                attempts,
                timeout=None if following is None else limits.stagger,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for position, ended in enumerate(found := list(done)):
                try:
                    result = ended.result()
                except OSError as failure:
                    error = failure
                    continue
                # Those that answered in the same moment are ended with those that have not.
                attempts.update(found[position + 1 :])
                return result
    finally:
        await _abandon(attempts)


async def _attempt(
    address: IPAddress, port: int, limits: AdmissionLimits, connecting: Connect, until: float
) -> tuple[IPAddress, socket.socket]:
    return address, await connecting(
        address, port, min(asyncio.get_running_loop().time() + limits.each, until)
    )


async def _abandon(attempts: Iterable[asyncio.Task[tuple[IPAddress, socket.socket]]]) -> None:
    attempts = list(attempts)
    for attempt in attempts:
        attempt.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if not isinstance(outcome, BaseException):
            outcome[1].close()
