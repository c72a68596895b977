"""The last good answers, kept over a restart: a file of JSON that is replaced as a whole.

Clocks differ between two runs, so the file holds seconds that were left when it was written, and when that
was. A wall clock that has been turned back makes addresses stay for longer, never for less.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from math import inf, isfinite
from pathlib import Path
from typing import Any

from marchproxy.model.address import IPAddress, parse_ip
from marchproxy.model.errors import InvalidValue

log = logging.getLogger(__name__)

FORMAT = "marchproxy-names/1"
FILE_NAME = "names.json"
_LARGEST = 64 << 20

type Kept = Mapping[str, Iterable[tuple[IPAddress, float, float]]]
"""By name: addresses, with the seconds for which each is current and lingers; infinite: no end in sight."""


def write(path: Path, names: Kept, now: float) -> None:
    """Replace the file; `now` in seconds since the epoch. Raises `OSError`."""
    document = {
        "format": FORMAT,
        "saved": now,
        "names": {
            name: [[str(address), _finite(fresh), _finite(left)] for address, fresh, left in addresses]
            for name, addresses in names.items()
        },
    }
    beside = path.with_name(f"{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, separators=(",", ":"))
    beside.replace(path)


def read(path: Path, now: float) -> dict[str, list[tuple[IPAddress, float, float]]]:
    """What is left of it at `now`. Missing, damaged or of another version: nothing, and the log says so."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_LARGEST))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        passed = max(0.0, now - _number(document["saved"]))
        return {name: _left(rows, passed) for name, rows in document["names"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidValue) as error:
        log.warning("%s is left aside, host names are resolved anew: %s", path, error)
        return {}


def _left(rows: Any, passed: float) -> list[tuple[IPAddress, float, float]]:
    found = []
    for text, fresh, left in rows:
        if _number(left) > passed:
            found.append((parse_ip(text), _number(fresh) - passed, _number(left) - passed))
    return found


def _finite(seconds: float) -> float | None:
    return None if seconds == inf else round(seconds, 1)


def _number(value: Any) -> float:
    if value is None:
        return inf
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
        raise ValueError(f"{value!r} is no number of seconds")
    return float(value)
