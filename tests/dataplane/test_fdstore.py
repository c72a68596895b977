"""fdstore: a listener goes from one daemon to the next, and nobody is refused in between."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.dataplane.fdstore import DescriptorStore, store_name
from marchproxy.dataplane.notify import Notifier
from marchproxy.model.protocol import Transport


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    made = Notifier(manager.getsockname())
    yield made
    made.close()


def heard(manager: socket.socket) -> list[str]:
    found: list[str] = []
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(manager, 4096, 4)
        except BlockingIOError:
            return found
        for descriptor in descriptors:
            os.close(descriptor)
        found.append(message.decode().replace("\n", " "))


def test_names_have_no_colon() -> None:
    assert store_name(Transport.TCP, ip_address("::"), 80) == "tcp-__-80"
    assert store_name(Transport.TCP, ip_address("10.0.0.1"), 80) == "tcp-10.0.0.1-80"


def test_what_is_kept_is_sent_once_and_released_once(manager: socket.socket, notifier: Notifier) -> None:
    store = DescriptorStore.adopt(notifier, {})
    with socket.socket() as sock:
        for _ in range(2):
            store.keep("a", sock)
    for _ in range(2):
        store.release("a")
    assert heard(manager) == ["FDSTORE=1 FDNAME=a FDPOLL=0", "FDSTOREREMOVE=1 FDNAME=a"]


def test_without_a_manager_nothing_is_inherited(notifier: Notifier) -> None:
    for environment in (
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
    ):
        given = dict(environment)
        assert DescriptorStore.adopt(notifier, given).take("") is None
        assert not given


@pytest.mark.parametrize(
    ("environment", "held"), [({}, False), ({"FDSTORE": "2"}, True), ({"FDSTORE": "1"}, False)]
)
def test_what_the_next_daemon_inherits_is_known(
    notifier: Notifier, environment: dict[str, str], *, held: bool
) -> None:
    store = DescriptorStore.adopt(notifier, environment)
    with socket.socket() as sock:
        store.keep("a", sock)
        store.keep("b", sock)
    assert store.holds("a") is held
    store.release("a")
    assert not store.holds("a")


def test_what_was_inherited_is_inherited_again(notifier: Notifier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        store = DescriptorStore(notifier, {"a": sock})
        assert store.take("a") is sock
        assert store.holds("a")
        store.release("a")
        store.keep("a", sock)
        assert not store.holds("a"), "it is sent anew, and may be refused"


_NEXT = """
import os, socket, sys
from marchproxy.dataplane.fdstore import DescriptorStore
from marchproxy.dataplane.notify import Notifier

os.environ["LISTEN_PID"] = str(os.getpid())
store = DescriptorStore.adopt(Notifier(sys.argv[1]))
assert not {name for name in os.environ if name.startswith("LISTEN_")}
taken = store.take("wanted")
assert taken is not None and store.take("wanted") is None
assert not os.get_inheritable(taken.fileno())
store.keep("wanted", taken)
store.close()
taken.setblocking(True)
client, _ = taken.accept()
client.sendall(b"hello")
client.close()
"""


def test_who_connects_between_two_daemons_is_served_by_the_next(manager: socket.socket) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as wanted,
        socket.create_server(("127.0.0.1", 0)) as unwanted,
        socket.create_connection(wanted.getsockname()) as client,
    ):
        # Descriptors from 3 on, as the manager would place them.
        command = 'exec 3<&"$1" 4<&"$2"; shift 2; exec "$@"'
        numbers = [str(sock.fileno()) for sock in (wanted, unwanted)]
        argv = [sys.executable, "-c", _NEXT, manager.getsockname()]
        ended = subprocess.run(
            ["bash", "-c", command, "bash", *numbers, *argv],
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "wanted:unwanted"},
            pass_fds=[wanted.fileno(), unwanted.fileno()],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert client.recv(5) == b"hello"
    assert heard(manager) == ["FDSTOREREMOVE=1 FDNAME=unwanted"], "what is kept already is not sent again"
