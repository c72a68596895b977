"""grpc: the health service of others, asked."""

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from marchproxy.dataplane.health.grpc import HealthCall, _state
from marchproxy.dataplane.health.http import BadAnswer
from marchproxy.dataplane.health.probes import probe
from tests.dataplane.health.test_probes import at, check, serving
from tests.dataplane.loops import looped


@looped
async def test_what_the_health_service_says() -> None:
    server = aio.server()
    service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        states = health_pb2.HealthCheckResponse
        await service.set("shop.Cart", states.SERVING)
        await service.set("shop.Till", states.NOT_SERVING)
        assert await probe(at(port), check("grpc", path="")) == ""
        assert await probe(at(port), check("grpc", path="shop.Cart")) == ""
        assert await probe(at(port), check("grpc", path="shop.Till")) == "not serving"
        assert await probe(at(port), check("grpc", path="shop.None")) == "the service is unknown there"
        await service.set("", states.NOT_SERVING)
        assert await probe(at(port), check("grpc", path="")) == "not serving"
        long = "a." * 120
        await service.set(long, states.SERVING)
        assert await probe(at(port), check("grpc", path=long)) == ""
    finally:
        await server.stop(None)


@looped
async def test_a_server_without_one() -> None:
    server = aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert await probe(at(port), check("grpc", path="")) == "there is no health service"
    finally:
        await server.stop(None)


@looped
async def test_a_server_that_speaks_something_else() -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    async with serving(answer) as server:
        assert await probe(at(server.port), check("grpc", path="")) == "the answer is HTTP/1"


@pytest.mark.parametrize(
    "message",
    [b"", b"\0\0\0\0", b"\1\0\0\0\0", b"\0\0\0\0\2\x08", b"\0\0\0\0\2\x08\x09", b"\0\0\0\0\2\x10\1"],
)
def test_messages_that_are_none_of_a_health_service(message: bytes) -> None:
    with pytest.raises(BadAnswer):
        _state(message)


def test_an_answer_has_an_end() -> None:
    call = HealthCall("", "h", secure=False)
    with pytest.raises(BadAnswer):
        call.feed(bytes(20_000))
