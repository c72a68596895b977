"""redaction: secrets of every form we know go, everything else stays."""

import pytest

from marchproxy.dataplane.redaction import redact

TOKEN = "Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmE="
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ3ZWIifQ.c2lnbmF0dXJl"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Proxy-Authorization: Bearer abc.def", "abc.def"),
        ("proxy-authorization: basic d2ViOnRva2Vu", "d2ViOnRva2Vu"),
        ("MARCHPROXY/1 s3cret", "s3cret"),
        ("postgresql://marchproxy:hunter2@db/marchproxy", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
        ("DB_PASS=hunter2", "hunter2"),
        ('"log_http":"https://logs.example/ingest/a1b2c3?k=v"', "ingest/a1b2c3"),
        (f"a token {TOKEN} in a log", TOKEN),
        (f"jwt {JWT}", JWT),
        (f"key:\n{KEY}\n", "MIIEvQIBADANBg"),
    ],
)
def test_what_looks_like_a_secret_goes(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert "[removed]" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "sha256 " + "0123456789abcdef" * 4,
        '{"auth": "token", "name": "web"}',
        "10.0.0.1:443 -> 2001:db8::1 FORWARDED",
        "https://example.com/path",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redact(text) == text
