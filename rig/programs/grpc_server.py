"""A server of gRPC, and healthy: `/rig.Echo/One` sends a message back, `/rig.Echo/Many` each of a stream."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from rig.programs.listening import serve


async def one(request: bytes, context: Any) -> bytes:
    """A call with one message each way."""
    context.set_trailing_metadata((("x-server", "rig"),))
    return request


async def many(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """A stream each way."""
    async for each in requests:
        yield each


async def listen(address: str, port: int) -> object:
    """Serve on one address."""
    server = grpc.aio.server()
    methods = {
        "One": grpc.unary_unary_rpc_method_handler(one),
        "Many": grpc.stream_stream_rpc_method_handler(many),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rig.Echo", methods),))
    service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    await service.set("rig.Echo", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(f"{address}:{port}")
    await server.start()
    return server


if __name__ == "__main__":
    serve(__doc__ or "", listen)
