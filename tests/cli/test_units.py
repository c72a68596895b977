"""Numbers as people read them."""

import pytest

from marchproxy.cli.units import duration, size


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
