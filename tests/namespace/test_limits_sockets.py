"""Rate limits without BPF: new flows are limited, and `status` says what is not."""

import time
from contextlib import suppress
from typing import Any

import pytest

from rig import Appliance, Rig, wait_for
from rig.traffic import fetch
from tests.namespace.conftest import define

pytestmark = pytest.mark.requires("root", "netns", "veth")

VIP = "10.1.0.1"


def test_sockets_limit_new_flows_and_say_what_they_cannot(rig: Rig) -> None:
    with Appliance(rig, name="limit-sockets") as built:
        define(built, mode="auto")
        built.cli("limit", "add", "--per", "source", "--flows-per-second", "1", "--burst", "5")
        built.cli("limit", "add", "--per", "total", "--bytes-per-second", "1M")
        built.start("--no-bpf")

        def knock() -> int:
            served = 0
            for _ in range(20):
                with suppress(ConnectionError):
                    served += b"server" in fetch(VIP, 8080)
            return served

        start = time.monotonic()
        assert 5 <= rig.client.call(knock) <= 6 + time.monotonic() - start

        def limited() -> dict[str, Any] | None:
            status: dict[str, Any] = built.json("status", check=False)
            return status if "RATE_LIMITED" in status["counters"] else None

        status = wait_for(limited, "the refusals to be counted")
        assert any("total-bytes: packets and bytes are not limited" in each for each in status["problems"])
