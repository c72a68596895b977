"""The first backend of a pool that answers."""

import socket
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.proxy.ledger import Conversation, Ledger
from marchproxy.dataplane.proxy.reach import Unreachable, reach
from marchproxy.model.address import IPAddress
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from tests.dataplane.loops import looped
from tests.dataplane.plans import backend, listener, plan, rule

HERE = ip_address("127.0.0.1")


class Hosts:
    """Those of these ports answer."""

    def __init__(self, *alive: int) -> None:
        self.alive = alive
        self.tried: list[int] = []

    async def connect(self, address: IPAddress, port: int, until: float | None) -> socket.socket:
        self.tried.append(port)
        if port not in self.alive:
            raise ConnectionRefusedError
        return socket.socket()


def conversation() -> tuple[Ledger, Conversation]:
    ledger = Ledger()
    ledger.adopt(plan(listener(80, rule(backend(1), backend(2), backend(3, service="other")))), 1)
    query, answer = ledger.decide(Transport.TCP, HERE, HERE, 80)
    return ledger, ledger.begin(query, 5000, answer)


@looped
async def test_the_next_is_tried_where_one_refuses() -> None:
    hosts = Hosts(2)
    found, upstream = await reach(*conversation(), each=1.0, within=2.0, connecting=hosts.connect)
    upstream.close()
    assert found.port == hosts.tried[-1] == 2


@looped
async def test_only_backends_of_the_wanted_services_are_tried() -> None:
    hosts = Hosts(1, 2, 3)
    found, upstream = await reach(
        *conversation(), each=1.0, within=2.0, connecting=hosts.connect, among={"other"}
    )
    upstream.close()
    assert (found.service, hosts.tried) == ("other", [3])


@pytest.mark.parametrize(
    ("among", "reason"), [(None, Reason.UPSTREAM_REFUSED), (frozenset({"none"}), Reason.NO_BACKEND)]
)
@looped
async def test_where_none_answers_the_last_reason_is_told(
    among: frozenset[str] | None, reason: Reason
) -> None:
    with pytest.raises(Unreachable) as caught:
        await reach(*conversation(), each=1.0, within=2.0, connecting=Hosts().connect, among=among)
    assert caught.value.reason is reason
