"""Plans into open sockets: only the difference, all of it or nothing."""

import asyncio
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from marchproxy.dataplane.naming import ServiceNames
from marchproxy.dataplane.proxy.tier import default_limits
from marchproxy.model.entities import Balance, Interface, Role
from marchproxy.model.errors import Conflict
from marchproxy.model.protocol import Transport
from marchproxy.model.reason import Reason
from marchproxy.policy.plan import ANYONE, Match, Plan, TransitRule
from tests.dataplane.loops import looped, until
from tests.dataplane.plans import backend, listener, plan, rule
from tests.dataplane.proxy.peers import appliance, ask, dial, echo, free_port, says, tcp_server


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


@looped
async def test_a_new_plan_leaves_allowed_connections_and_their_listener_alone() -> None:
    port, other = free_port(), free_port()
    async with tcp_server(echo) as server:
        one = listener(port, rule(backend(server)))
        two = listener(other, rule(backend(server)))
        async with appliance(plan(one)) as running, dial(port) as (reader, writer):
            writer.write(b"before")
            assert await reader.readexactly(6) == b"before"
            kept = {key: item.socket.fileno() for key, item in running.tier._open.items()}
            renamed = listener(port, rule(backend(server), mapping="another"))
            for revision, following in enumerate(
                (plan(one, two), plan(renamed, two), plan(renamed)), start=2
            ):
                await running.tier.apply(following, revision)
                writer.write(b"after")
                assert await reader.readexactly(5) == b"after"
            assert {key: item.socket.fileno() for key, item in running.tier._open.items()} == kept
            assert not is_open(other)
            assert running.reasons() == [("flow-start", "FORWARDED")]


@looped
async def test_what_is_carried_is_told_of_live_and_ended_connections() -> None:
    port = free_port()
    async with tcp_server(echo) as server:
        served = plan(listener(port, rule(backend(server))))
        async with appliance(served) as running:
            await running.tier.count(lambda: ServiceNames(served))
            for flows in (1, 2):
                async with dial(port) as (reader, writer):
                    writer.write(b"before")
                    assert await reader.readexactly(6) == b"before"
                    found = (await running.tier.carried(ServiceNames(served))).mappings["m"]
                    counted = found.flows, found.sent_bytes, found.received_bytes
                    assert counted == (flows, 6 * flows, 6 * flows)


@looped
async def test_connections_that_are_no_longer_allowed_are_reset() -> None:
    port = free_port()
    async with tcp_server(echo) as server:
        before = plan(listener(port, rule(backend(server))))
        after = plan(
            listener(port, rule(backend(server), sources=("friend",))),
            sources={"friend": "127.0.0.2/32"},
        )
        async with (
            appliance(before) as running,
            dial(port) as (stranger, stranger_out),
            dial(port, source="127.0.0.2") as (friend, friend_out),
        ):
            for reader, writer in ((stranger, stranger_out), (friend, friend_out)):
                writer.write(b"a")
                assert await reader.readexactly(1) == b"a"
            await running.tier.apply(after, 2)
            with pytest.raises(ConnectionResetError):
                await stranger.read()
            friend_out.write(b"b")
            assert await friend.readexactly(1) == b"b"
            assert [item for item in running.reasons() if item[0] == "flow-end"] == [
                ("flow-end", "POLICY_CHANGED")
            ]


@looped
async def test_a_removed_listener_ends_its_connections() -> None:
    port = free_port()
    async with tcp_server(echo) as server, appliance(plan(listener(port, rule(backend(server))))) as running:
        async with dial(port) as (reader, writer):
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"
            await running.tier.apply(Plan(), 2)
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert not is_open(port)


@looped
async def test_a_connection_keeps_a_backend_that_has_left_the_pool() -> None:
    port = free_port()
    async with (
        tcp_server(echo) as old,
        tcp_server(says(b"new")) as new,
        appliance(plan(listener(port, rule(backend(old))))) as running,
    ):
        async with dial(port) as (reader, writer):
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"
            await running.tier.apply(plan(listener(port, rule(backend(new)))), 2)
            writer.write(b"b")
            assert await reader.readexactly(1) == b"b"
        assert await ask(port) == b"new"


@pytest.mark.parametrize("transport", list(Transport))
@looped
async def test_a_port_in_use_refuses_the_plan_and_leaves_the_old_one(transport: Transport) -> None:
    port, free = free_port(), free_port()
    kind = socket.SOCK_STREAM if transport is Transport.TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if transport is Transport.TCP:
            other.listen()
        taken = other.getsockname()[1]
        async with tcp_server(says(b"old")) as server:
            before = listener(port, rule(backend(server)))
            async with appliance(plan(before)) as running:
                after = plan(listener(free, rule()), listener(taken, rule(), transport=transport))
                with pytest.raises(Conflict, match=f"127.0.0.1:{taken}/{transport}: another program"):
                    await running.tier.apply(after, 2)
                assert await ask(port) == b"old"
                assert not is_open(free)
                assert running.events[-1].decision.revision == 1
                other.close()
                await running.tier.apply(after, 2)
                assert not is_open(port)


@looped
async def test_an_address_and_its_wildcard_on_one_port_follow_their_own_rules() -> None:
    port = free_port()
    async with tcp_server(says(b"exact")) as exact_server, tcp_server(says(b"any")) as any_server:
        exact = listener(port, rule(backend(exact_server)), address="127.0.0.2")
        wildcard = listener(port, rule(backend(any_server)), address="0.0.0.0")

        async def told(address: str) -> bytes:
            async with dial(port, address) as (reader, _):
                return await reader.read()

        async with appliance(plan(exact)) as running:
            assert await told("127.0.0.2") == b"exact"
            await running.tier.apply(plan(wildcard, exact), 2)
            assert [await told("127.0.0.2"), await told("127.0.0.1")] == [b"exact", b"any"]
            await running.tier.apply(plan(wildcard), 3)
            assert [await told("127.0.0.2"), await told("127.0.0.1")] == [b"any", b"any"]
            await running.tier.apply(plan(exact), 4)
            assert await told("127.0.0.2") == b"exact"
            assert not is_open(port, "127.0.0.1")


@looped
async def test_no_other_process_can_take_a_share_of_a_listener() -> None:
    port = free_port()
    async with appliance(plan(listener(port, rule(), address="0.0.0.0"))):
        with socket.socket() as intruder:
            intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                intruder.bind(("0.0.0.0", port))


@looped
async def test_a_listen_address_that_is_not_here_is_a_problem_and_no_refusal() -> None:
    absent = listener(free_port(), rule(), address="192.0.2.1")
    async with appliance(plan(absent)) as running:
        assert running.tier.problems() == ["listen address 192.0.2.1 is on no interface of this host"]
        await running.tier.apply(Plan(), 2)
        assert running.tier.problems() == []


@looped
async def test_routed_traffic_is_a_problem_because_no_socket_sees_it() -> None:
    one = TransitRule("one", 1, ("net",), (), (ANYONE,), (), (Match(6),), Reason.FORWARDED)
    other, deny = replace(one, mapping="other"), replace(one, mapping="no", reason=Reason.DENY_MAPPING)
    async with appliance(replace(Plan(), transit=(deny,))) as running:
        assert running.tier.problems() == []
        await running.tier.apply(replace(Plan(), transit=(deny, one, one, other)), 2)
        problem = "routed traffic is not carried without BPF: mapping one and 1 more"
        assert running.tier.problems() == [problem]


@looped
async def test_draining_lets_connections_finish_and_refuses_new_ones() -> None:
    port = free_port()
    async with (
        tcp_server(echo) as server,
        appliance(plan(listener(port, rule(backend(server))))) as running,
        dial(port) as (reader, writer),
    ):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        draining = asyncio.ensure_future(running.tier.drain(10))
        await until(lambda: not is_open(port))
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        assert not draining.done()
        writer.write_eof()
        assert await reader.read() == b""
        await draining
        assert running.reasons()[-1] == ("flow-end", "CLOSED")


@looped
async def test_draining_ends_what_does_not_finish() -> None:
    port = free_port()
    async with (
        tcp_server(echo) as server,
        appliance(plan(listener(port, rule(backend(server))))) as running,
        dial(port) as (reader, writer),
    ):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        await running.tier.drain(0.01)
        with pytest.raises(ConnectionResetError):
            await reader.read()


@looped
async def test_backends_that_are_compared_tell_their_connections() -> None:
    compared, other = free_port(), free_port()
    async with tcp_server(echo) as server:
        fewest = replace(rule(backend(server)), balance=Balance.LEAST_CONNECTIONS)
        spread = listener(other, rule(backend(server, "127.0.0.9"), mapping="another"))
        async with appliance(plan(listener(compared, fewest), spread)) as running:
            (load,) = running.tier.loads()
            assert (str(load.address), load.port, load.flows) == ("127.0.0.1", server, 0)
            async with dial(compared) as one, dial(compared) as two:
                for reader, writer in (one, two):
                    writer.write(b"a")
                    assert await reader.readexactly(1) == b"a"
                assert [each.flows for each in running.tier.loads()] == [2]
            await until(lambda: [each.flows for each in running.tier.loads()] == [0])


@looped
async def test_interfaces_are_shown_as_not_attached() -> None:
    interface = Interface("eth0", Role.INSIDE)
    async with appliance(Plan(interfaces=(interface,))) as running:
        (state,) = running.tier.interfaces()
        assert (state.name, state.role, state.mode, state.attached) == ("eth0", Role.INSIDE, "auto", "")


@looped
async def test_events_that_nobody_wants_are_not_made() -> None:
    port = free_port()
    async with appliance(plan(listener(port, rule(reason=Reason.DENY_MAPPING)))) as running:
        await running.tier.want(frozenset())
        with pytest.raises(ConnectionResetError):
            await ask(port)
        assert running.events == []
        assert running.packets(Reason.DENY_MAPPING) == 1


def test_limits_leave_descriptors_for_everything_else() -> None:
    for descriptors in (64, 1024, 20_000, 1_000_000):
        tcp, udp = default_limits(descriptors)
        assert tcp.connections > 0
        assert udp.sessions > 0
        assert descriptors < 300 or 2 * tcp.connections + udp.sessions <= descriptors - 256


@looped
async def test_addresses_in_use_are_those_of_clients_listeners_and_backends() -> None:
    port = free_port()
    async with tcp_server(echo) as server:
        open_plan = plan(listener(port, rule(backend(server)), address="127.0.0.1"))
        async with appliance(open_plan) as running:
            asked = frozenset(map(ip_address, ("127.0.0.1", "127.0.0.2", "192.0.2.9")))
            assert await running.tier.in_use(asked) == frozenset()
            async with dial(port, source="127.0.0.2") as (reader, writer):
                writer.write(b"a")
                assert await reader.readexactly(1) == b"a"
                assert await running.tier.in_use(asked) == {ip_address("127.0.0.1"), ip_address("127.0.0.2")}
