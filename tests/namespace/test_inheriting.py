"""Who connects while the daemon is away: a manager holds the sockets, and the kernel answers for them."""

import os
import signal
import socket
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rig import Appliance, Rig

pytestmark = [
    pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "tcx"),
    # Three daemons one after the other, each of which takes ten seconds on a machine with a load of ten.
    pytest.mark.timeout(240),
]

PATIENCE = 60.0
_FIRST = 3
"""SD_LISTEN_FDS_START."""
_RETRANSMITTED = slice(100, 104)
"""`tcpi_total_retrans` in `struct tcp_info` (linux/tcp.h)."""


class Manager:
    """Does for a daemon what systemd does with `FileDescriptorStoreMax=`."""

    def __init__(self, appliance: Appliance, folder: Path) -> None:
        self._appliance = appliance
        self._held: dict[str, int] = {}
        self._told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.bind(str(folder / "notify"))
        self._told.settimeout(PATIENCE)
        self._env = {**os.environ, **appliance.env, "NOTIFY_SOCKET": str(folder / "notify"), "FDSTORE": "64"}
        self._env |= {"MARCHPROXY_DRAIN_SECONDS": "0", "MARCHPROXY_METRICS_LISTEN": "off"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a daemon with what is held, and return when it says that it is ready."""
        listed = {"LISTEN_FDS": str(len(self._held)), "LISTEN_FDNAMES": ":".join(self._held)}
        # Its own process id is known to nobody else.
        taken = " ".join(f"{_FIRST + number}<&{held}" for number, held in enumerate(self._held.values()))
        words = ["bash", "-c", f'LISTEN_PID=$$ exec "$@" {taken}', "bash", *self._appliance.command, "run"]
        self.process = self._appliance.host.call(
            lambda: subprocess.Popen(
                words, env=self._env | listed, pass_fds=tuple(self._held.values()), stderr=subprocess.DEVNULL
            )
        )
        while "READY=1" not in self._heard():
            pass

    def end(self, number: signal.Signals) -> None:
        """End the daemon by a signal."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)
            self.process = None

    def close(self) -> None:
        """End the daemon, and let go of everything."""
        self.end(signal.SIGKILL)
        self._told.close()
        for held in self._held.values():
            os.close(held)

    def _heard(self) -> list[str]:
        data, rights, _, _ = self._told.recvmsg(4096, socket.CMSG_SPACE(4))
        lines = data.decode().split("\n")
        names = [line.removeprefix("FDNAME=") for line in lines if line.startswith("FDNAME=")]
        for _, _, packed in rights:
            self._held[names[0]] = array("i", packed)[0]
        return lines


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[tuple[Rig, Manager]]:
    with Rig() as rig, Appliance(rig) as appliance:
        appliance.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            appliance.cli("interface", "add", name, "--role", role)
        appliance.cli("listener", "add", "explicit", "--bind", "10.1.0.1:3128")
        manager = Manager(appliance, tmp_path)
        try:
            manager.start()
            yield rig, manager
        finally:
            manager.close()
            appliance.cli("detach", "--yes", check=False)


type Span = tuple[float, float]
"""Two moments of the monotonic clock."""


def knocking(over: threading.Event, again: list[int], reset: list[Span]) -> Callable[[], None]:
    """Connect again and again; how many segments of each were sent twice. `reset`: when those began, and were
    told so, that were accepted and then reset before they knew that they stand.
    """

    def knock() -> None:
        while not over.wait(0.02):
            began = time.monotonic()
            try:
                with socket.create_connection(("10.1.0.1", 3128), timeout=PATIENCE) as sock:
                    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            except ConnectionResetError:
                reset.append((began, time.monotonic()))
                continue
            again.append(int.from_bytes(info[_RETRANSMITTED], "little"))

    return knock


def test_nobody_has_to_ask_twice_while_a_daemon_is_stopped_or_killed(managed: tuple[Rig, Manager]) -> None:
    rig, manager = managed
    over, again, failures = threading.Event(), list[int](), list[BaseException]()
    reset, ends = list[Span](), list[Span]()

    def watched() -> None:
        try:
            rig.client.call(knocking(over, again, reset))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=watched)
    thread.start()
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            signalled = time.monotonic()
            manager.end(number)
            ends.append((signalled, time.monotonic()))
            manager.start()
    finally:
        over.set()
        thread.join(PATIENCE)
    assert failures == []
    # What a daemon has accepted it ends with itself; nobody who comes once it is gone is refused.
    for began, told in reset:
        assert any(began <= gone and told >= signalled for signalled, gone in ends)
    assert set(again) == {0}
    assert len(again) > 10
