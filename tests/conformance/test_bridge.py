"""What a client of HTTP/1.1 hears of an extended CONNECT."""

from conformance.bridge import WAYS, switched


def test_a_websocket_is_accepted_with_the_key_of_its_client() -> None:
    answer = [(":status", "200"), ("sec-websocket-protocol", "chat"), ("via", "2 marchproxy")]
    said = switched(answer, "dGhlIHNhbXBsZSBub25jZQ==")
    assert said.startswith(b"HTTP/1.1 101 ")
    # RFC 6455, section 1.3.
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in said
    assert b"\r\nsec-websocket-protocol: chat\r\n\r\n" in said
    assert b"via" not in said


def test_a_refusal_is_one() -> None:
    assert switched([(":status", "403")], "x").startswith(b"HTTP/1.1 403 ")
    assert sorted(WAYS) == ["h2", "h3", "tls"]
