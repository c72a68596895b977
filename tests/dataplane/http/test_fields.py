"""Fields that go on, and those that do not."""

from marchproxy.dataplane.http.fields import about_client, from_backend, from_client

OWN = (("accept", "*/*"), ("x_own", "1"))


def test_what_is_of_the_connection_stays() -> None:
    fields = (
        *OWN,
        *(("connection", "x"), ("keep-alive", "1"), ("te", "x"), ("upgrade", "h2c"), ("content-length", "5")),
        *(("transfer-encoding", "chunked"), ("proxy-connection", "x"), ("x-named", "1")),
    )
    assert from_client(fields, {"x-named"}) == OWN
    assert from_backend(fields, {"x-named"}) == OWN


def test_what_we_say_ourselves_is_not_taken_from_clients() -> None:
    forged = [("x-forwarded-for", "1"), ("x_forwarded_for", "1"), ("forwarded", "1"), ("x-real-ip", "1")]
    assert from_client([*OWN, *forged, ("x-marchproxy-service", "admin")], ()) == OWN
    assert from_backend([*OWN, ("x-marchproxy-reason", "x")], ()) == OWN


def test_where_a_request_comes_from() -> None:
    assert dict(about_client("2001:db8::1", "https", "h:8443", "1.1")) == {
        "x-forwarded-for": "2001:db8::1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "h:8443",
        "forwarded": 'for="[2001:db8::1]";proto=https;host="h:8443"',
        "via": "1.1 marchproxy",
    }
    assert "x-forwarded-host" not in dict(about_client("10.0.0.1", "http", "", "1.0"))
