"""gRPC from end to end: a client and a server that others wrote, and MarchProxy between them."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from tests.dataplane.admission.desk import Desk, desk
from tests.dataplane.http.http2.backend import routed2
from tests.dataplane.http.http2.test_client import met
from tests.dataplane.http.site import LAN, QUICK
from tests.dataplane.loops import looped, until
from tests.policy import build
from tests.policy.build import mapping, service

LONG = 60.0


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Calls that pass bytes as they are."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """See `grpc.GenericRpcHandler`."""
        name = details.method.rpartition("/")[2]
        kinds = {
            "One": grpc.unary_unary_rpc_method_handler(one),
            "Fail": grpc.unary_unary_rpc_method_handler(fail),
            "Slow": grpc.unary_unary_rpc_method_handler(slow),
            "Down": grpc.unary_stream_rpc_method_handler(down),
            "Up": grpc.stream_unary_rpc_method_handler(up),
            "Both": grpc.stream_stream_rpc_method_handler(both),
        }
        return kinds.get(name)


async def one(request: bytes, context: Any) -> bytes:
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-from", metadata.get("x-forwarded-for", "")),))
    return request[::-1]


async def fail(request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today, \u00e4")
    return b""


async def slow(request: bytes, context: Any) -> bytes:
    await asyncio.sleep(LONG)
    return b""


async def down(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for index in range(int(request)):
        yield bytes(10_000) + b"%d" % index


async def up(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"%d" % sum([len(each) async for each in requests])


async def both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for each in requests:
        yield each.upper()


@asynccontextmanager
async def calling(limits: Any = QUICK, **fields: Any) -> AsyncGenerator[tuple[Desk, grpc.aio.Channel]]:
    """A server, and a channel to it through a desk."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.2:0")
    await server.start()
    try:
        async with desk(limits=limits) as at:
            at.apply(routed2(at, port, path_prefix=None, host="*.example", **fields))
            options = [("grpc.default_authority", "calls.example"), ("grpc.enable_retries", 0)]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{at.port}", options=options) as channel:
                yield at, channel
    finally:
        await server.stop(None)


@looped
async def test_unary_calls_with_metadata_and_trailers() -> None:
    async with calling() as (at, channel):
        method = channel.unary_unary("/t.T/One")
        calls = [method(b"abc%d" % index) for index in range(50)]
        assert [await call for call in calls] == [(b"abc%d" % index)[::-1] for index in range(50)]
        assert dict(await calls[0].trailing_metadata())["x-from"] == "127.0.0.1"
        [flow] = await at.admission.flows(10)
        assert flow.decision.name == "calls.example"


@looped
async def test_large_messages() -> None:
    async with calling() as (_, channel):
        message = bytes(range(256)) * 12_000
        assert await channel.unary_unary("/t.T/One")(message) == message[::-1]


@looped
async def test_streams_in_each_direction() -> None:
    async with calling() as (_, channel):
        heard = [each async for each in channel.unary_stream("/t.T/Down")(b"300")]
        assert [each[10_000:] for each in heard] == [b"%d" % index for index in range(300)]

        async def many() -> AsyncIterator[bytes]:
            for _ in range(300):
                yield bytes(10_000)

        assert await channel.stream_unary("/t.T/Up")(many()) == b"3000000"


@looped
async def test_a_stream_both_ways_may_be_silent_for_longer_than_a_backend() -> None:
    async with calling(replace(QUICK, silence=0.1)) as (at, channel):
        call = channel.stream_stream("/t.T/Both")()
        for word in (b"one", b"two", b"three"):
            await call.write(word)
            assert await call.read() == word.upper()
            await asyncio.sleep(0.3)
            at.admission._reads_http().tick()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@looped
async def test_a_server_s_own_failure_is_told_as_it_is() -> None:
    async with calling() as (_, channel):
        call = channel.unary_unary("/t.T/Fail")(b"")
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert await call.details() == "not today, \u00e4"
        call = channel.unary_unary("/t.T/Missing")(b"")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED


@looped
async def test_a_deadline_ends_a_call_on_both_sides() -> None:
    async with calling() as (at, channel):
        call = channel.unary_unary("/t.T/Slow")(b"", timeout=0.3)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: not at.admission._reads_http()._http2._tasks, "its tasks to be over")


@looped
async def test_a_deadline_that_a_client_forgets_is_kept_here() -> None:
    async with calling() as (at, channel):
        # As metadata: the library does not know of it.
        call = channel.unary_unary("/t.T/Slow")(b"", timeout=LONG)
        stream = await met(at)
        stream.exchange._expires = time.monotonic() - 1
        at.admission._reads_http().tick()
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await call.details() == "UPSTREAM_TIMEOUT: the deadline of the call has passed"


@looped
async def test_what_policy_says_is_a_status_of_grpc() -> None:
    async with calling() as (at, channel):
        listen = f"127.0.0.1:{at.port}"
        vault = service("vault", "127.0.0.2", auth="token", port=9)
        shut = service("shut", "127.0.0.2", port=9)
        at.apply(
            build.plan(
                LAN,
                vault,
                shut,
                mapping("a", "lan", "vault", listen, "grpc", path_prefix="/t.Vault"),
                mapping("b", "lan", "shut", listen, "grpc", path_prefix="/t.Shut"),
                mapping("c", "lan", "shut", listen, "grpc", path_prefix="/t.Deny", action="deny"),
            ),
            3,
        )
        wanted = {
            "Vault": (grpc.StatusCode.UNAUTHENTICATED, "AUTH_MISSING"),
            "Shut": (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_REFUSED"),
            "Deny": (grpc.StatusCode.PERMISSION_DENIED, "DENY_MAPPING"),
            "None": (grpc.StatusCode.UNIMPLEMENTED, "NO_MAPPING"),
        }
        for name, (code, reason) in wanted.items():
            call = channel.unary_unary(f"/t.{name}/One")(b"")
            assert await call.code() is code
            assert str(await call.details()).startswith(f"{reason}: ")
