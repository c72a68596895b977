"""Both kinds of connections that have switched protocols, seen alike."""

import pytest

from marchproxy.dataplane.http.carrying import FLUSH, Carrying
from marchproxy.dataplane.http.switching import Copying
from marchproxy.dataplane.http.upstream import Asking
from marchproxy.dataplane.http.websockets import OnStream
from tests.dataplane.http.site import response, served
from tests.dataplane.http.test_switching import HANDSHAKE, websocket
from tests.dataplane.loops import looped, until
from tests.dataplane.proxy.peers import dial


@pytest.mark.parametrize("kind", [OnStream, Copying])
def test_a_backend_that_has_switched_is_heard_by_either(kind: type) -> None:
    wanted = {name for name in vars(Asking) if not name.startswith("_")}
    assert all(callable(getattr(kind, name)) for name in wanted)
    assert not getattr(kind, "__abstractmethods__", None)
    assert issubclass(kind, Carrying)


@looped
async def test_a_client_that_leaves_takes_the_backend_with_it() -> None:
    async with served(serve=websocket) as (at, _):
        async with dial(at.port) as (reader, writer):
            writer.write(HANDSHAKE)
            await response(reader)
        # At once, and not when `FLUSH` is over.
        await until(lambda: any(event.kind.value == "flow-end" for event in at.events))
        assert FLUSH > 0
