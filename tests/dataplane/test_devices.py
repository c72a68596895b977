"""Counters of network devices."""

from pathlib import Path

import pytest

from marchproxy.dataplane.devices import read_devices
from marchproxy.telemetry.facts import DeviceCounts

TEXT = """Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs
    lo:     100       2    0    0    0     0          0         0      100       2    0    0 0 0 0 0
  eth0: 1100 11 13 15 0 0 0 0 1200 12 14 16 0 0 0 0
eth0:1:  7 7 7 7 7 7 7 7 7 7 7 7 7 7 7 7
  bad: x
"""


def test_each_device_has_both_directions(tmp_path: Path) -> None:
    file = tmp_path / "dev"
    file.write_text(TEXT)
    found = read_devices({"eth0", "gone", "bad"}, file)
    assert found == {"eth0": DeviceCounts((11, 1100), (12, 1200), 13, 14, 15, 16)}
    assert read_devices({"eth0:1"}, file)["eth0:1"].received == (7, 7)


def test_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    assert read_devices({"eth0"}, tmp_path / "nowhere") == {}


def test_the_kernel_s_own_file_is_understood() -> None:
    found = read_devices({"lo"})
    if "lo" not in found:
        pytest.fail("every network namespace has a loopback device")
    assert found["lo"].received == found["lo"].sent
