"""Values as text on one line."""

import pytest

from marchproxy.client.words import cell, endpoint, happening, printable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (0, "0"),
        (False, "no"),
        (True, "yes"),
        (["a", "b", "c"], "a,b,c"),
        (["a", "b", "c", "d", "e"], "a,b,c,+2"),
        ("x\x1b[31m\ny", "x\\x1b[31m\\ny"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert cell(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain — ünïcode 漢字", "plain — ünïcode 漢字"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\u202e\x00\udc80", "\\u202e\\x00\\udc80"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("address", "port", "text"),
    [
        ("10.0.0.1", 80, "10.0.0.1:80"),
        ("2001:db8::1", 80, "[2001:db8::1]:80"),
        ("2001:db8::1", 0, "2001:db8::1"),
    ],
)
def test_endpoints(address: str, port: int, text: str) -> None:
    assert endpoint({"at": address, "at_port": port}, "at") == text


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "10.1.0.2:4711 GET http://www.example/a: 200 by 10.2.0.2:80, 1.2 ms  web"),
        (
            {"tls": True, "name": "", "verdict": "deny", "reason": "NO_MAPPING", "status": 404, "backend": ""}
            | {"mapping": ""},
            "10.1.0.2:4711 GET https://10.1.0.1:80/a: 404, NO_MAPPING, 1.2 ms  -",
        ),
        ({"status": 0}, "10.1.0.2:4711 GET http://www.example/a: gone by 10.2.0.2:80, 1.2 ms  web"),
    ],
)
def test_requests_are_told_as_in_an_access_log(more: dict[str, object], text: str) -> None:
    event = {
        **{"kind": "request", "source": "10.1.0.2", "source_port": 4711, "destination": "10.1.0.1"},
        **{"destination_port": 80, "name": "www.example", "method": "GET", "path": "/a", "tls": False},
        **{"status": 200, "backend": "10.2.0.2:80", "verdict": "allow", "reason": "FORWARDED"},
        **{"took_ms": 1.23, "mapping": "web"},
    }
    assert happening(event | more) == text
