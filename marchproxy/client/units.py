"""Numbers as people read and write them."""

import re

from marchproxy.model.errors import InvalidValue

MAX_DIGITS = 18
"""Of a whole number, as in YAML; int() itself refuses some thousands, in words for programmers."""
_STEPS = ("B", "kB", "MB", "GB", "TB")


def size(count: int) -> str:
    """Bytes in powers of 1000: `1.2 MB`."""
    value, step = float(count), 0
    while value >= 999.5 and step < len(_STEPS) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.0f} {_STEPS[step]}" if step == 0 or value >= 99.5 else f"{value:.1f} {_STEPS[step]}"


def duration(seconds: float) -> str:
    """The two largest units: `3d 4h`, `5m 12s`, `8s`."""
    left = int(max(seconds, 0))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


_SIZE = re.compile(r"([0-9]{1,12}) ?([kmg]?)b?")
_FACTORS = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}


def parse_size(text: str, *, field: str = "size") -> int:
    """Bytes of `500k`, `64M`, `1G` (powers of 1000), or of a number without a unit. Raises `InvalidValue`."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidValue(field, text, "bytes such as 500k, 64M or 1G")
    return int(found[1]) * _FACTORS[found[2]]


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9}) ?([smhd]?)")


def parse_duration(text: str, *, field: str = "duration") -> int:
    """Whole seconds of `30s`, `10m`, `2h`, `7d`, or of a number without a unit. Raises `InvalidValue`."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidValue(field, text, "a duration such as 30s, 10m, 2h or 7d")
    return int(found[1]) * _UNITS[found[2]]
