"""Reading wrk's output."""

import pytest

from benchmarks.wrk import WrkRun, parse
from rig import RigError

CLEAN = """Running 2s test @ http://10.1.0.1:8080/
  2 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   420.81us  365.63us   6.45ms   87.56%
    Req/Sec    41.02k     2.50k   46.20k    68.29%
  167227 requests in 2.10s, 33.97MB read
Requests/sec:  79632.17
Transfer/sec:     16.18MB
"""
TROUBLED = CLEAN.replace(
    "Requests/sec",
    "  Socket errors: connect 1, read 20, write 300, timeout 4000\n"
    "  Non-2xx or 3xx responses: 50000\n"
    "Requests/sec",
)


def test_figures_are_found() -> None:
    assert parse(CLEAN) == WrkRun(requests=167227, failed=0, per_second=79632.17)


def test_every_kind_of_failure_is_counted() -> None:
    assert parse(TROUBLED).failed == 54321


def test_a_run_without_a_result_is_an_error_with_what_was_printed() -> None:
    with pytest.raises(RigError, match="no result") as caught:
        parse("unable to connect to 10.1.0.1:8080 Connection refused")
    assert "Connection refused" in caught.value.hint
