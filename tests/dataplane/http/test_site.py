"""What connections share."""

from marchproxy.dataplane.http.messages import Request
from tests.dataplane.http.site import answer, get, response, served
from tests.dataplane.loops import looped
from tests.dataplane.proxy.peers import dial

REQUEST = Request("GET", "h", "h", "/", "/", (), 0, "1.1")


@looped
async def test_a_conversation_stays_with_its_backend_where_its_strategy_is_by_client() -> None:
    for balance, stays in (("source", True), ("round-robin", False)):
        async with served(answer(), balance=balance) as (at, backend), dial(at.port) as (reader, writer):
            writer.write(get("/here/x"))
            await response(reader)
            [connection] = at.admission._reads_http().live
            [conversation] = connection.conversations
            assert conversation.backend is not None
            assert conversation.backend.port == backend.port
            settled = at.admission._reads_http()._site.settled(conversation, REQUEST)
            assert settled is (conversation.backend if stays else None)
