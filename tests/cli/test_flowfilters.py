"""Flags that narrow flows and events are the daemon's parameters."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from marchproxy.cli.events import events
from marchproxy.cli.flows import flows
from marchproxy.dataplane.control.filters import read_filter

VALUES = {
    "source": "10.0.0.0/8",
    "destination": "::1",
    "port": "80",
    "protocol": "tcp",
    "mapping": "m",
    "service": "s",
    "reason": "IDLE",
    "text": "x",
}


@pytest.mark.parametrize("command", [flows, events])
def test_each_is_a_flag_and_a_parameter(command: Callable[..., Any]) -> None:
    assert VALUES.keys() <= inspect.signature(command).parameters.keys()
    for name, value in VALUES.items():
        assert read_filter({name: value})
