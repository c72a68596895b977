"""Values as they stand on the screen."""

from datetime import UTC, datetime

import pytest

from marchproxy.tui import words
from tests.tui.stage import decision, flow


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bit/s"),
        (999, "999 bit/s"),
        (1000, "1.0 kbit/s"),
        (134_400_000, "134 Mbit/s"),
        (9.5e9, "9.5 Gbit/s"),
        (5e15, "5000 Tbit/s"),
    ],
)
def test_scaled(value: float, text: str) -> None:
    assert words.scaled(value, "bit/s") == text


def test_counted() -> None:
    assert [words.counted(number, "host name") for number in (0, 1, 1200)] == [
        "0 host names",
        "1 host name",
        "1,200 host names",
    ]


def test_times() -> None:
    assert words.age("2030-01-01T00:00:00.000Z", datetime(2030, 1, 1, 1, 2, tzinfo=UTC)) == "1h 2m"
    assert words.age("") == "-"
    assert words.clock("2030-01-01T12:34:56.789Z") == "12:34:56"


def test_ends_and_routes() -> None:
    row = decision(1, name="db.example.com", destination_service="", destination="2001:db8::1")
    assert words.route(row) == "10.1.0.2:40001 → [2001:db8::1]:443"
    assert words.end(row, "source") == "10.1.0.2:40001 clients"
    assert words.end(row, "destination") == "[2001:db8::1]:443 db.example.com"
    assert "\x1b" not in words.end(decision(1, name="\x1b[2J", destination_service=""), "destination")


def test_numbers_and_verdicts() -> None:
    assert words.whole(1234567) == "1,234,567"
    assert words.volume(flow(2)) == "2.0 kB"
    assert [words.verdict(name).plain for name in ("deny", "audit", "allow", "host")] == [
        "✗ deny",
        "! audit",
        "✓ allow",
        "· host",
    ]
