"""What systemd hears, on a socket that stands in for it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.dataplane.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def heard(manager: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_the_life_of_a_service(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    notifier.ready("revision 1")
    notifier.reloading()
    notifier.ready("revision 2")
    notifier.status("one\nproblem")
    notifier.stopping()
    notifier.close()
    ready, reloading, again, status, stopping = heard(manager)
    assert ready == "READY=1\nSTATUS=revision 1"
    first, second = reloading.splitlines()
    assert first == "RELOADING=1"
    assert second.removeprefix("MONOTONIC_USEC=").isdigit()
    assert again == "READY=1\nSTATUS=revision 2"
    assert status == "STATUS=one problem"
    assert stopping.startswith("STOPPING=1\n")


def test_the_environment_says_whom_to_tell_and_how_often(manager: socket.socket) -> None:
    told = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "60000000"}
    for environment, count in (
        (told, 1),
        ({**told, "WATCHDOG_PID": str(os.getpid())}, 1),
        ({**told, "WATCHDOG_PID": "1"}, 0),
        ({**told, "WATCHDOG_USEC": "0"}, 0),
        ({**told, "WATCHDOG_USEC": "soon"}, 0),
        ({"NOTIFY_SOCKET": manager.getsockname()}, 0),
        ({"WATCHDOG_USEC": "60000000"}, 0),
        ({}, 0),
    ):
        notifier = Notifier.from_environment(environment)
        notifier.alive()
        # Too soon for another.
        notifier.alive()
        notifier.close()
        assert heard(manager) == ["WATCHDOG=1"] * count, environment


def test_a_short_watchdog_is_answered_every_time(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname(), watchdog=1e-6)
    for _ in range(3):
        notifier.alive()
    notifier.close()
    assert heard(manager) == ["WATCHDOG=1"] * 3


def test_a_descriptor_is_handed_to_the_manager(manager: socket.socket) -> None:
    notifier = Notifier(manager.getsockname())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        notifier.keep("tcp", listening.fileno())
        message, descriptors, _, _ = socket.recv_fds(manager, 4096, 4)
        with socket.socket(fileno=descriptors[0]) as held:
            assert held.getsockname() == listening.getsockname()
    assert message.splitlines() == [b"FDSTORE=1", b"FDNAME=tcp", b"FDPOLL=0"]
    notifier.release("tcp")
    notifier.close()
    assert heard(manager) == ["FDSTOREREMOVE=1\nFDNAME=tcp"]


def test_abstract_names_are_understood() -> None:
    name = f"\0marchproxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.setblocking(False)
        notifier = Notifier("@" + name[1:])
        notifier.status("here")
        notifier.close()
        assert heard(listening) == ["STATUS=here"]


def test_a_manager_that_is_gone_or_busy_stops_nothing(tmp_path: Path, manager: socket.socket) -> None:
    gone = Notifier(str(tmp_path / "nobody"))
    gone.ready("x")
    gone.close()
    busy = Notifier(manager.getsockname())
    for _ in range(2000):
        busy.status("x" * 1000)
    busy.close()
