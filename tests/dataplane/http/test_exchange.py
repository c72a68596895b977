"""Requests whose sides are not equally fast."""

from tests.dataplane.http.site import answer, get, only, response, served
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial


@looped
async def test_a_slow_client_is_not_a_silent_backend() -> None:
    async with served(answer(bytes(8_000_000))) as (at, _), dial(at.port) as (reader, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(get())
        await until(lambda: bool(at.admission._reads_http().live))
        connection = only(at)
        await until(lambda: connection._full)
        exchange = connection.exchange
        assert exchange is not None
        exchange.overdue(exchange.waits_since + 3600)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await response(reader))[1]) == 8_000_000
