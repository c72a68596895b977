"""HTTP: what the clients print is understood, failures are none of the figures, and goals are held up."""

from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from benchmarks.bed import Bed
from benchmarks.http import ROWS, goals, h2load, handshakes, markdown, nothing_open, show, wrk
from benchmarks.httpproxies import Caddy, Direct, HAProxyHttp, MarchProxyHttp, Reader
from benchmarks.results import Measurement, Run
from rig import RigError

S_TIME = """
Collecting connection statistics for 2 seconds
tttttttttttt
600 connections in 0.31s; 1935.48 connections/user sec, bytes read 1
600 connections in 3 real seconds, 300 bytes read per connection

Now timing with session id reuse.
starting
rrrrrrrr
1000 connections in 0.21s; 4761.90 connections/user sec, bytes read 1
1000 connections in 3 real seconds, 300 bytes read per connection
"""
H2LOAD = """
finished in 2.01s, 21406.50 req/s, 1.43MB/s
requests: 42813 total, 42941 started, 42813 done, {good} succeeded, {bad} failed, {bad} errored, 0 timeout
"""


def bed(printed: str, asked: list[list[str]]) -> Bed:
    """One whose client prints this, and keeps what it was asked to run."""

    def run(argv: list[str], **_: Any) -> object:
        asked.append(argv)
        return SimpleNamespace(stdout=printed)

    return cast(Bed, SimpleNamespace(rig=SimpleNamespace(client=SimpleNamespace(run=run))))


def test_handshakes_of_all_clients_are_added_up_and_of_two_parts_the_last_counts() -> None:
    asked: list[list[str]] = []
    assert handshakes("-reuse")(bed(S_TIME, asked), "10.1.0.1", 2) == 4 * 500
    assert len(asked) == 4
    assert asked[0][-1] == "-reuse"
    # It ends with the second whole second that begins after the one in which it began.
    assert asked[0][asked[0].index("-time") + 1] == "1"
    with pytest.raises(RigError, match="nobody"):
        handshakes("-new")(bed("0 connections in 3 real seconds", []), "10.1.0.1", 2)


def test_h2load_counts_where_next_to_nothing_failed() -> None:
    assert h2load(bed(H2LOAD.format(good=42813, bad=0), []), "10.1.0.1", 2) == 21406.5
    with pytest.raises(RigError, match="failures"):
        h2load(bed(H2LOAD.format(good=40000, bad=2813), []), "10.1.0.1", 2)


def test_wrk_asks_for_the_path_under_tls_where_that_is_the_port() -> None:
    asked: list[list[str]] = []
    printed = "  1000 requests in 2.00s, 1.0MB read\nRequests/sec:    500.00\n"
    assert wrk(path="/large", port=8443)(bed(printed, asked), "10.1.0.1", 2) == 500
    assert asked[0][-1] == "https://10.1.0.1:8443/large"
    with pytest.raises(RigError, match="30 of 1000"):
        wrk()(bed(printed + "  Non-2xx or 3xx responses: 30\n", []), "10.1.0.1", 2)


def test_what_opens_nothing_before_is_asked_of_the_contender_that_stands() -> None:
    asked: list[list[str]] = []
    printed = "  1000 requests in 2.00s, 1.0MB read\nRequests/sec:    500.00\n"
    contender = cast(Reader, SimpleNamespace(bed=bed(printed, asked), target="10.2.0.2"))
    with nothing_open(wrk())(contender, 2) as work:
        assert not asked
        assert work() == 500
    assert asked[0][-1] == "http://10.2.0.2:8080/"


def made() -> Run:
    """Half of HAProxy's figures, for twice its processor time; twice Caddy's."""
    run = Run({"kernel": "6"}, {"marchproxy": "1", "haproxy": "2", "caddy": "3"}, 1, 2)
    for name, value, busy in (("marchproxy", 10e3, 40e-6), ("haproxy", 20e3, 20e-6), ("caddy", 5e3, 80e-6)):
        run.measurements.append(Measurement(0, "small", name, value, busy))
    return run


def test_each_peer_is_compared_and_haproxy_sets_the_goal() -> None:
    one, other = goals(made())
    assert HAProxyHttp.title in one
    assert "0.50 of HAProxy, 0.50 of its work for the same processor time, goal 0.8 MISSED" in one
    assert other.endswith(f"2.00 of {Caddy.title}, 2.00 of its work for the same processor time")


def test_the_page_has_a_row_for_each_workload_and_a_dash_where_nothing_was_measured() -> None:
    page = markdown(made())
    assert f"| | {MarchProxyHttp.title} | {HAProxyHttp.title} | {Caddy.title} |" in page
    assert "| small answers, kept connections, k/s | 10.0 (10.0-10.0)<br>40.0 µs | 20.0" in page
    assert page.count("| - | - | - |") == len(ROWS) - 1


def carried_by_the_kernel() -> Run:
    """Messages by WebSocket, which take the kernel half as much as with HAProxy, and MarchProxy nothing."""
    run = Run({"kernel": "6"}, {"routing": "0", "marchproxy": "1", "haproxy": "2"}, 1, 2)
    figures = (("routing", 80e3, 0, 20e-6), ("marchproxy", 60e3, 0, 25e-6), ("haproxy", 30e3, 15e-6, 50e-6))
    run.measurements += [Measurement(0, "websocket", *each) for each in figures]
    return run


def test_where_the_kernel_carries_the_whole_machine_is_compared_with_nobody_in_between_too() -> None:
    suffix = "of its work for the same processor time of the machine"
    assert list(goals(carried_by_the_kernel())) == [
        f"WebSocket, messages in turn: 0.75 of {Direct.title}, 0.80 {suffix}",
        f"WebSocket, messages in turn: 2.00 of {HAProxyHttp.title}, 2.00 {suffix}",
    ]
    assert "| 60.0 (60.0-60.0)<br>0.0 µs, 25.0 of the machine |" in markdown(carried_by_the_kernel())


def test_new_connections_have_no_processor_time_without_a_proxy() -> None:
    run = Run({"kernel": "6"}, {"routing": "0", "marchproxy": "1"}, 1, 2)
    for name, value, busy in (("routing", 10e3, 0.0), ("marchproxy", 2e3, 90e-6)):
        run.measurements.append(Measurement(0, "websocket-new", name, value, busy))
    assert list(goals(run)) == ["new WebSockets: 0.20 of no proxy"]


def test_only_what_was_measured_is_shown() -> None:
    console = Console(file=StringIO(), width=200)
    show(carried_by_the_kernel(), console)
    printed = cast(StringIO, console.file).getvalue()
    assert "WebSocket, messages in turn, k/s" in printed
    assert "new WebSockets" not in printed
