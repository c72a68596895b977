"""The live table of the demo."""

import io
from typing import Any

from rich.console import Console

from demo.board import Amount, Board, Carried, Refused, size

STATUS = {"counters": {"FORWARDED": {"packets": 12345, "bytes": 1}, "NO_MAPPING": {"packets": 3, "bytes": 1}}}


def record(**changes: Any) -> dict[str, Any]:
    """A decision as `flows --denied --output json` prints it."""
    return {
        "id": 0,
        "time": "2026-01-01T00:00:00.000Z",
        "source": "10.1.0.2",
        "source_port": 40000,
        "destination": "10.1.0.1",
        "destination_port": 80,
        "protocol": "tcp",
        "tier": "tc",
        "reason": "FORWARDED",
        "mapping": "web",
        **changes,
    }


def flow(**changes: Any) -> dict[str, Any]:
    """A conversation as `flows --output json` prints it."""
    amounts = {"packets_sent": 1, "bytes_sent": 60, "packets_received": 2, "bytes_received": 1000}
    return record(id=1) | amounts | changes


def test_conversations_of_one_kind_share_a_row() -> None:
    board = Board()
    six = {"source": "fd01::2", "destination": "fd01::1"}
    board.update(STATUS, [flow(), flow(id=2, source_port=40001), flow(id=3, **six)], [])
    assert board.carried() == {
        Carried("web", "tcp", "IPv4", "tc"): Amount(2, 6, 2120),
        Carried("web", "tcp", "IPv6", "tc"): Amount(1, 3, 1060),
    }


def test_a_conversation_that_grew_is_not_counted_twice_and_one_that_ended_is_not_forgotten() -> None:
    board = Board()
    board.update(STATUS, [flow(), flow(id=2, source_port=40001)], [])
    board.update(STATUS, [flow(bytes_received=5000)], [])
    assert board.carried() == {Carried("web", "tcp", "IPv4", "tc"): Amount(2, 6, 6120)}


def test_refusals_are_counted_by_kind_and_once_each() -> None:
    board = Board()
    first = record(reason="NO_MAPPING", mapping="", source="10.1.0.99")
    second = {**first, "source_port": 40001}
    denied = record(reason="DENY_MAPPING", mapping="no-lab", source="10.1.0.66")
    board.update(STATUS, [], [first])
    board.update(STATUS, [], [second, first, denied])
    assert board.refused() == {
        Refused("10.1.0.99", "10.1.0.1:80/tcp", "NO_MAPPING", "tc", ""): 2,
        Refused("10.1.0.66", "10.1.0.1:80/tcp", "DENY_MAPPING", "tc", "no-lab"): 1,
    }


def test_the_table_fits_80_columns_and_says_who_carried_and_why_not() -> None:
    board = Board()
    denied = record(reason="DENY_MAPPING", mapping="no-lab", source="fd01::66", destination="fd01::1")
    board.update(STATUS, [flow()], [denied])
    stream = io.StringIO()
    Console(file=stream, width=80).print(board)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "DENY_MAPPING (no-lab)" in text
    assert "[fd01::1]:80/tcp" in text
    assert "FORWARDED 12,345, NO_MAPPING 3" in text


def test_sizes_read_like_sizes() -> None:
    assert [size(count) for count in (0, 999, 1000, 1_500_000, 2_000_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.0 GB",
    ]
