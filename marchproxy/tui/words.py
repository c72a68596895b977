"""Values as they stand on the screen."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rich.text import Text

from marchproxy.client.units import duration, size
from marchproxy.client.words import cell, endpoint

type Row = Mapping[str, Any]

_STEPS = ("", "k", "M", "G", "T")


def scaled(value: float, unit: str) -> str:
    """`1.2 Mbit/s`: three digits and a power of 1000."""
    step = 0
    while value >= 999.5 and step < len(_STEPS) - 1:
        value, step = value / 1000, step + 1
    digits = f"{value:.0f}" if value >= 99.5 or not step else f"{value:.1f}"
    return f"{digits} {_STEPS[step]}{unit}".rstrip()


def age(instant: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 instant was; `-` for none."""
    if not instant:
        return "-"
    return duration(((now or datetime.now(UTC)) - datetime.fromisoformat(instant)).total_seconds())


def clock(instant: str) -> str:
    """The time of day in UTC, to the second."""
    return instant[11:19]


def counted(number: int, thing: str) -> str:
    """`1 listener`, `2 listeners`."""
    return f"{whole(number)} {thing}{'' if number == 1 else 's'}"


def whole(value: int) -> str:
    """Digits in groups of three."""
    return f"{value:,}"


def route(row: Row) -> str:
    """`10.1.0.2:40000 → 10.2.0.2:443`."""
    return f"{endpoint(row, 'source')} → {endpoint(row, 'destination')}"


def end(row: Row, name: str) -> str:
    """One end with what it is called: its service, or the host name that was asked for."""
    known = row[f"{name}_service"] or (row["name"] if name == "destination" else "")
    return cell(endpoint(row, name)) + (f" {cell(known)}" if known else "")


def volume(row: Row) -> str:
    """What a flow carried both ways."""
    return size(row["bytes_sent"] + row["bytes_received"])


def verdict(text: str) -> Text:
    """A verdict with a sign that does not depend on colour."""
    sign = {"deny": "✗", "audit": "!", "allow": "✓"}.get(text, "·")
    return Text(f"{sign} {text}")
