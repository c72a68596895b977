"""`/healthz` and `/metrics` over TCP."""

import json
import socket
from collections.abc import Mapping

import pytest

from marchproxy.dataplane.carried import Carried, Load
from marchproxy.dataplane.control.http1 import HttpError, Request
from marchproxy.dataplane.healthserver import HealthApi, HealthServer
from marchproxy.dataplane.status import Problem
from marchproxy.model.endpoint import parse_endpoint
from tests.dataplane import facts
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import dial, free_port

GET = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"


async def carried() -> Mapping[str, Carried]:
    made = Carried()
    made.take("shop/out", "shop/lan", "shop/web", Load(1, 2, 300, 4, 5000))
    return {"kernel": made}


async def fetch(port: int, request: bytes = GET, address: str = "127.0.0.1") -> bytes:
    async with dial(port, address) as (reader, writer):
        writer.write(request)
        return await reader.read()


@looped
async def test_health_is_200_or_503_with_the_component_that_is_wrong() -> None:
    well = await HealthApi(facts.status, carried).handle(Request("GET", "/healthz"))
    assert (well.status, json.loads(bytes(well.body))) == (200, {"healthy": True, "problems": []})  # type: ignore[arg-type]
    stuck = HealthApi(lambda: facts.status(Problem("tier", "stuck")), carried)
    ill = await stuck.handle(Request("GET", "/healthz"))
    assert ill.status == 503
    assert json.loads(bytes(ill.body))["problems"] == [{"component": "tier", "message": "stuck"}]  # type: ignore[arg-type]


@looped
async def test_metrics_are_in_prometheus_text_format() -> None:
    api = HealthApi(lambda: facts.status(Problem("names", "x")), carried)
    answer = await api.handle(Request("GET", "/metrics"))
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    assert isinstance(answer.body, bytes)
    lines = answer.body.decode().splitlines()
    assert 'marchproxy_packets_total{by="kernel",reason="FORWARDED"} 10.0' in lines
    assert 'marchproxy_problems{component="names"} 1.0' in lines
    assert 'marchproxy_problems{component="policy"} 0.0' in lines


@looped
async def test_a_service_has_sent_what_the_other_side_has_received() -> None:
    answer = await HealthApi(facts.status, carried).handle(Request("GET", "/metrics"))
    assert isinstance(answer.body, bytes)
    told = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if "shop/" in line)
    for name, labels, value in (
        ("mapping_bytes", 'direction="sent",mapping="shop/out",tier="kernel"', 300),
        ("mapping_bytes", 'direction="received",mapping="shop/out",tier="kernel"', 5000),
        ("mapping_packets", 'direction="received",mapping="shop/out",tier="kernel"', 4),
        ("mapping_flows", 'mapping="shop/out",tier="kernel"', 1),
        ("service_bytes", 'direction="sent",service="shop/lan",side="source",tier="kernel"', 300),
        ("service_bytes", 'direction="received",service="shop/lan",side="source",tier="kernel"', 5000),
        ("service_bytes", 'direction="sent",service="shop/web",side="destination",tier="kernel"', 5000),
        ("service_bytes", 'direction="received",service="shop/web",side="destination",tier="kernel"', 300),
        ("service_flows", 'service="shop/web",side="destination",tier="kernel"', 1),
    ):
        assert float(told[f"marchproxy_{name}_total{{{labels}}}"]) == value, (name, labels)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405)])
@looped
async def test_nothing_else_is_there(method: str, path: str, status: int) -> None:
    with pytest.raises(HttpError) as caught:
        await HealthApi(facts.status, carried).handle(Request(method, path))
    assert caught.value.status == status


@looped
async def test_it_listens_where_it_is_told() -> None:
    for text in ("127.0.0.1", "[::1]", "*"):
        port = free_port()
        server = HealthServer(parse_endpoint(f"{text}:{port}"), facts.status, carried)
        await server.ensure()
        assert (await fetch(port, address="::1" if ":" in text else "127.0.0.1")).startswith(
            b"HTTP/1.1 200 OK"
        )
        assert server.problems() == []
        await server.close()


@looped
async def test_a_port_in_use_is_a_problem_until_it_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = HealthServer(parse_endpoint(f"127.0.0.1:{port}"), facts.status, carried)
        await server.ensure()
        (problem,) = server.problems()
        assert str(problem) == f"metrics: cannot listen on 127.0.0.1:{port}: Address already in use"
    server._next_attempt = 0.0
    await server.ensure()
    assert server.problems() == []
    assert (await fetch(port)).startswith(b"HTTP/1.1 200 OK")
    await server.close()


@looped
async def test_a_port_that_is_claimed_makes_its_clients_wait() -> None:
    port = free_port()
    server = HealthServer(parse_endpoint(f"127.0.0.1:{port}"), facts.status, carried)
    server.claim()
    async with dial(port) as (reader, writer):
        writer.write(GET)
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
        await server.ensure()
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    await server.close()
    claimed = HealthServer(parse_endpoint(f"127.0.0.1:{port}"), facts.status, carried)
    claimed.claim()
    await claimed.close()
    socket.create_server(("127.0.0.1", port)).close()


@looped
async def test_it_can_be_switched_off() -> None:
    server = HealthServer(None, facts.status, carried)
    await server.ensure()
    assert server.problems() == []
    await server.close()
