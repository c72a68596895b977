"""WebSockets: program and proxies say what RFC 6455 demands, and a wrong answer is no figure."""

import base64
import hashlib
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from benchmarks import websockets
from benchmarks.bed import WEBSOCKET, Bed, Port, compiled
from benchmarks.httpproxies import MarchProxyHttp, Reader
from rig import Process, Rig, RigError

pytestmark = pytest.mark.requires(commands=["clang"])

KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455, section 1.3."""
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UPGRADE = "upgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\n"
HEAD = f"GET / HTTP/1.1\r\nhost: x\r\n{UPGRADE}sec-websocket-key:{KEY}\r\n"
MASK = bytes((1, 2, 3, 4))


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    server = subprocess.Popen([compiled("websocket"), "serve", str(number)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    yield number
    server.kill()
    server.wait()
    server.stdout.close()


def ended(sent: bytes, port: int) -> bytes:
    """What the server says until it ends."""
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(4096), b""))


def masked(first: int, payload: bytes) -> bytes:
    text = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    return bytes((first, 0x80 | len(payload))) + MASK + text


def test_the_server_accepts_the_key_and_sends_back_what_was_masked(port: int) -> None:
    whole = (
        HEAD.encode()
        + b"Sec-WebSocket-Version: 13\r\n\r\n"
        + masked(0x82, b"hello")
        + masked(0x88, b"\3\xe8")
    )
    head, _, frames = ended(whole, port).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert f"Sec-WebSocket-Accept: {ACCEPT}" in head.decode()
    assert frames == b"\x82\x05hello\x88\x02\3\xe8"


@pytest.mark.parametrize("frame", [b"\x82\x05hello", masked(0x02, b"part"), masked(0x89, b"")])
def test_the_server_ends_where_a_frame_is_none_that_it_takes(port: int, frame: bytes) -> None:
    whole = HEAD.encode() + b"Sec-WebSocket-Version: 13\r\n\r\n" + frame
    assert ended(whole, port).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        HEAD + "Sec-WebSocket-Version: 8\r\n",
        HEAD.replace("upgrade: ", "upgraded: ") + "Sec-WebSocket-Version: 13\r\n",
        HEAD.replace(KEY, "c2hvcnQ=") + "Sec-WebSocket-Version: 13\r\n",
    ],
)
def test_the_server_refuses_what_is_no_handshake(port: int, head: str) -> None:
    assert ended(f"{head}\r\n".encode(), port).startswith(b"HTTP/1.1 400 ")


def ping(port: int, tmp_path: Path) -> Process:
    return Process([compiled("websocket"), "ping", "127.0.0.1", str(port), "0.2", "2"], log=tmp_path / "log")


def test_messages_go_from_the_signal_on(port: int, tmp_path: Path) -> None:
    talking = ping(port, tmp_path)
    talking.expect("open\n")
    assert talking.running
    talking.signal(signal.SIGUSR1)
    assert talking.wait() == 0
    found = json.loads(talking.output().partition("open\n")[2])
    assert found["count"] > 0
    assert 0.2 <= found["seconds"] < 5


def test_conversations_are_counted(port: int) -> None:
    said = subprocess.check_output(
        [compiled("websocket"), "new", "127.0.0.1", str(port), "0.2", "2"], text=True
    )
    assert websockets.per_second(said) > 0
    assert json.loads(said)["failed"] == 0


type Answer = Callable[[bytes], bytes]
"""What is said to a frame of the client."""


@pytest.fixture
def server() -> Iterator[Callable[..., int]]:
    """Starts one whose handshake is right but for what it is told, on a port that it returns."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(answer: Answer, head: Callable[[str], str]) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=_talk, args=(client, answer, head), daemon=True).start()

    def start(answer: Answer, head: Callable[[str], str] = str) -> int:
        threading.Thread(target=serve, args=(answer, head), daemon=True).start()
        return int(listening.getsockname()[1])

    yield start
    listening.close()


def _talk(client: socket.socket, answer: Answer, head: Callable[[str], str]) -> None:
    with client:
        try:
            asked = client.recv(4096).decode()
            key = asked.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
            accept = base64.b64encode(
                hashlib.sha1(f"{key}{GUID}".encode(), usedforsecurity=False).digest()
            ).decode()
            switched = "HTTP/1.1 101 Go on\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            client.sendall(head(f"{switched}sec-websocket-accept: {accept}\r\n\r\n").encode())
            while frame := client.recv(4096):
                client.sendall(answer(frame))
        except OSError:
            return


def unmasked(frame: bytes) -> bytes:
    """The echo of a message in one frame."""
    payload = bytes(byte ^ frame[2 + at % 4] for at, byte in enumerate(frame[6:]))
    return bytes((frame[0], frame[1] & 0x7F)) + payload


def test_every_frame_of_the_client_has_a_mask_of_its_own(server: Callable[..., int], tmp_path: Path) -> None:
    frames: list[bytes] = []

    def keep(frame: bytes) -> bytes:
        frames.append(frame)
        return unmasked(frame)

    talking = ping(server(keep), tmp_path)
    talking.expect("open\n")
    talking.signal(signal.SIGUSR1)
    assert talking.wait() == 0
    assert all(frame[:2] == b"\x82\xc0" and len(frame) == 70 for frame in frames)
    assert len({frame[2:6] for frame in frames}) > 0.9 * len(frames)
    assert len({unmasked(frame) for frame in frames}) == len(frames)


@pytest.mark.parametrize(
    "answer",
    [
        lambda frame: frame,
        lambda frame: unmasked(frame)[:-1] + b"x",
        lambda frame: b"\x88" + unmasked(frame)[1:],
        lambda frame: 2 * unmasked(frame),
    ],
    ids=["masked", "changed", "another kind", "twice"],
)
def test_a_wrong_answer_ends_the_client(answer: Answer, server: Callable[..., int], tmp_path: Path) -> None:
    talking = ping(server(answer), tmp_path)
    talking.expect("open\n")
    talking.signal(signal.SIGUSR1)
    assert talking.wait() == 1
    assert "a wrong answer" in talking.output()


@pytest.mark.parametrize("mode", ["ping", "new"])
@pytest.mark.parametrize("field", ["accept: ", "upgrade: ", "connection: "])
def test_a_wrong_handshake_ends_the_client(mode: str, field: str, server: Callable[..., int]) -> None:
    port = server(unmasked, lambda head: head.replace(field, f"x-{field}"))
    argv = [compiled("websocket"), mode, "127.0.0.1", str(port), "0.2", "1"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert "the handshake has a wrong answer" in done.stderr


def test_a_refusal_ends_messages_and_is_counted_of_conversations(
    server: Callable[..., int], tmp_path: Path
) -> None:
    port = server(unmasked, lambda _: "HTTP/1.1 403 Forbidden\r\n\r\n")
    talking = ping(port, tmp_path)
    assert talking.wait() == 1
    assert "403 Forbidden" in talking.output()
    said = subprocess.check_output(
        [compiled("websocket"), "new", "127.0.0.1", str(port), "0.2", "2"], text=True
    )
    with pytest.raises(RigError, match="conversations failed, 0 did not"):
        websockets.per_second(said)


class Standing:
    """Who is in the way of the clients, and what it was asked for."""

    target = "127.0.0.1"

    def __init__(self, tmp_path: Path) -> None:
        def popen(argv: list[str]) -> Process:
            self.talking = Process(argv, log=tmp_path / "log")
            return self.talking

        self.bed = SimpleNamespace(rig=SimpleNamespace(client=SimpleNamespace(popen=popen)))
        self.settled: list[int] = []

    def settle(self, count: int) -> None:
        assert "open\n" in self.talking.output()
        self.settled.append(count)


@pytest.fixture
def standing(tmp_path: Path) -> Any:
    return Standing(tmp_path)


def test_websockets_are_settled_before_messages_are_counted(
    standing: Any, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "WEBSOCKET", Port("websocket", "tcp", port))
    with websockets.in_turn(standing, 1) as answers:
        assert standing.settled == [websockets.OPEN]
        assert answers() > 0
    assert not standing.talking.running


def test_wrong_answers_are_an_error_with_what_the_client_said(
    standing: Any, server: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "WEBSOCKET", Port("websocket", "tcp", server(lambda frame: frame)))
    with (
        pytest.raises(RigError, match="no right answer") as caught,
        websockets.in_turn(standing, 1) as answers,
    ):
        answers()
    assert "a wrong answer" in caught.value.hint


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", commands=["openssl"])
def test_the_kernel_carries_what_is_measured_through_marchproxy() -> None:
    with Rig() as rig:
        rig.server.popen([compiled("websocket"), "serve", str(WEBSOCKET.number)]).expect("ready")
        contender = MarchProxyHttp(cast(Bed, Mock(spec=Bed, rig=rig)))
        reader: Reader = contender
        with contender.standing(), websockets.in_turn(reader, 1) as answers:
            rows = contender.appliance.json("flows", "--port", str(WEBSOCKET.number))
            assert [(row["tier"], row["reason"]) for row in rows] == [("tc", "HANDED_OFF")] * websockets.OPEN
            assert answers() > 0
