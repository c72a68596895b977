"""Numbers as people read them."""

import pytest

from marchproxy.client.units import duration, parse_duration, size
from marchproxy.model.errors import InvalidValue


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1234, "1.2 kB"),
        (99_400, "99.4 kB"),
        (123_456, "123 kB"),
        (999_600, "1.0 MB"),
        (5_000_000_000, "5.0 GB"),
        (7 * 10**15, "7000 TB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (312, "5m 12s"),
        (3600, "1h"),
        (3605, "1h 5s"),
        (90061, "1d 1h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("30", 30), ("30s", 30), (" 10 m ", 600), ("2H", 7200), ("7d", 604_800)],
)
def test_parse_duration(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1.5h", "1w", "1h30m", "\u0663s", "9" * 10, "1\ns", "soon"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidValue, match="ttl"):
        parse_duration(text, field="ttl")
