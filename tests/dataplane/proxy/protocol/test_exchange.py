"""Events and commands."""

from marchproxy.dataplane.proxy.protocol.exchange import Relay, Request, Speech
from marchproxy.model.presented import Presented


def test_nothing_that_a_log_may_print_holds_a_secret() -> None:
    request = Request(Speech.CONNECT, "example.com", 443, Presented("s3cret", "web"))
    assert "s3cret" not in repr(request)
    assert "s3cret" not in repr(Relay(b"s3cret"))
