"""Reads what wrk prints. It has no machine-readable form."""

import re
from dataclasses import dataclass

from rig import RigError

_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_DONE = re.compile(r"(\d+) requests in ")
_FAILED = re.compile(
    r"Non-2xx or 3xx responses: (\d+)|Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)"
)


@dataclass(frozen=True, slots=True)
class WrkRun:
    """One run."""

    requests: int
    failed: int
    """Connections refused or broken, requests without an answer in 2 s, answers of failure."""
    per_second: float


def parse(text: str) -> WrkRun:
    """The figures in wrk's output; `RigError` where they are not there."""
    rate, done = _RATE.search(text), _DONE.search(text)
    if rate is None or done is None:
        raise RigError("wrk printed no result", hint=text)
    failed = sum(int(number) for found in _FAILED.findall(text) for number in found if number)
    return WrkRun(int(done[1]), failed, float(rate[1]))
