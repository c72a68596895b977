"""filters: the same flags choose everywhere."""

import pytest

from tests.cli.console import Console

FLAGS = ("--source", "--destination", "--port", "--protocol", "--mapping", "--service", "--reason")


@pytest.mark.parametrize("command", ["flows", "capture"])
def test_every_filter_is_explained(console: Console, command: str) -> None:
    shown = console.ok(command, "--help").out
    assert [flag for flag in FLAGS if f"{flag} " not in shown] == []
