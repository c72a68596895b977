"""Listeners opened and closed as the plan says. The host itself asks; strangers are in tests/namespace."""

import asyncio
import socket

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from marchproxy.dataplane.dns.forwarder import Forwarder
from marchproxy.dataplane.dns.responder import Responder
from marchproxy.dataplane.dns.service import DnsService
from marchproxy.dataplane.names.asker import Asker
from marchproxy.dataplane.names.resolver import Resolver
from marchproxy.dataplane.names.system import Upstreams
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.entities import Interface, Role
from marchproxy.policy.plan import Plan
from tests.dataplane.loops import PATIENCE, looped
from tests.dataplane.names.dns_server import DnsServer, dns_server
from tests.dataplane.proxy.peers import free_port

pytestmark = pytest.mark.requires("root")

INSIDE = (Interface("mp-none0", Role.INSIDE),)


async def reach(version: int, seconds: float) -> bool:
    return True


def service(server: DnsServer | None = None) -> DnsService:
    servers = (server.endpoint,) if server else ()
    forwarder = Forwarder(Asker(lambda: Upstreams(servers, timeout=PATIENCE, attempts=1)))
    return DnsService(Responder(forwarder, Resolver(own=lambda _: False), reach, lambda _: ""))


def plan(*binds: Endpoint) -> Plan:
    return Plan(dns=binds, interfaces=INSIDE)


async def ask(endpoint: Endpoint, *, tcp: bool = False) -> list[str]:
    query = dns.message.make_query("www.example.com", "A")
    over = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    answer = await over(query, str(endpoint.address), 5, endpoint.port)
    return [record.to_text() for rrset in answer.answer for record in rrset]


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]"])
@looped
async def test_the_host_is_answered_over_udp_and_tcp(address: str) -> None:
    bind = parse_endpoint(f"{address}:{free_port()}")
    async with dns_server() as server:
        server.has("www.example.com", "192.0.2.1")
        dns_service = service(server)
        await dns_service.look_after(plan(bind))
        assert await ask(bind) == ["192.0.2.1"]
        assert await ask(bind, tcp=True) == ["192.0.2.1"]
        state = dns_service.state()
        assert [(listener.bind, listener.interfaces) for listener in state.listeners] == [(bind, ("lo",))]
        assert state.questions == {"answered": 2}
        assert dns_service.problems() == []
        await dns_service.close()


@looped
async def test_a_listener_that_stays_is_not_touched_and_one_that_goes_is_closed() -> None:
    first, second = (parse_endpoint(f"127.0.0.1:{free_port()}") for _ in range(2))
    async with dns_server() as server:
        server.has("www.example.com", "192.0.2.1")
        dns_service = service(server)
        await dns_service.look_after(plan(first))
        reader, writer = await asyncio.open_connection(str(first.address), first.port)
        await dns_service.look_after(plan(first, second))
        assert await ask(second) == ["192.0.2.1"]
        query = dns.message.make_query("www.example.com", "A").to_wire()
        writer.write(len(query).to_bytes(2) + query)
        assert await reader.readexactly(2)
        writer.close()
        await dns_service.look_after(plan(second))
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect((str(first.address), first.port))
        await dns_service.close()
        with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
            probe.connect((str(second.address), second.port))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@looped
async def test_a_port_that_is_taken_is_a_problem_until_it_is_free(kind: socket.SocketKind) -> None:
    bind = parse_endpoint(f"127.0.0.1:{free_port()}")
    dns_service = service()
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind((str(bind.address), bind.port))
        if kind == socket.SOCK_STREAM:
            other.listen()
        await dns_service.look_after(plan(bind))
        (problem,) = dns_service.problems()
        assert problem.component == "dns"
        assert "another program has this address and port" in problem.message
        assert dns_service.state().listeners[0].interfaces == ()
    await dns_service.look_after(plan(bind))
    assert dns_service.problems() == []
    assert dns_service.state().listeners[0].interfaces == ("lo",)
    await dns_service.close()


@looped
async def test_every_address_is_for_inside_interfaces_alone() -> None:
    dns_service = service()
    bind = parse_endpoint(f"*:{free_port()}")
    await dns_service.look_after(Plan(dns=(bind,)))
    assert "nobody reaches the DNS listener" in dns_service.problems()[0].message
    assert dns_service.state().listeners[0].interfaces == ()
    await dns_service.look_after(Plan())
    assert dns_service.problems() == []
    await dns_service.close()


@looped
async def test_an_address_that_is_not_here_is_a_problem() -> None:
    dns_service = service()
    await dns_service.look_after(plan(parse_endpoint(f"203.0.113.77:{free_port()}")))
    (problem,) = dns_service.problems()
    assert problem.message == "listen address 203.0.113.77 is on no interface of this host"
    await dns_service.close()
