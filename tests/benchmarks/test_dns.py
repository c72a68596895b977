"""The program that asks DNS: what it counts as an answer."""

import json
import socket
import subprocess
import threading

import pytest

from benchmarks.bed import compiled
from rig.host import checked

pytestmark = pytest.mark.requires(commands=["clang"])


def asked(port: int) -> dict[str, float]:
    said: dict[str, float] = json.loads(
        checked([compiled("dns"), "ask", "127.0.0.1", str(port), "4", "0.5"]).stdout
    )
    return said


def serve(server: socket.socket, answer: bytes) -> None:
    """Answer every question with its id and `answer`."""
    try:
        while True:
            question, client = server.recvfrom(512)
            server.sendto(question[:2] + answer, client)
    except OSError:
        return


@pytest.fixture
def server() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    return made


def test_its_own_server_answers_right() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([compiled("dns"), "serve", str(port)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        said = asked(port)
        process.kill()
    assert said["answers"] > 0
    assert said["wrong"] == 0


def test_wrong_answers_are_none(server: socket.socket) -> None:
    with server:
        threading.Thread(target=serve, args=(server, bytes(10)), daemon=True).start()
        said = asked(server.getsockname()[1])
        assert said["answers"] == 0
        assert said["wrong"] > 0


def test_silence_is_a_loss(server: socket.socket) -> None:
    with server:
        said = asked(server.getsockname()[1])
    assert (said["answers"], said["wrong"]) == (0, 0)
    assert said["lost"] >= 4


def test_it_says_how_it_is_called() -> None:
    result = checked([compiled("dns"), "ask"], check=False)
    assert result.returncode == 2
    assert "usage: dns serve PORT" in result.stderr
