"""Clients that mean no good, and processes that die: who is refused hears why, and nobody else suffers."""

import hashlib
import hmac
import json
import os
import re
import signal
import socket
import struct
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from rig import Appliance, Rig, wait_for
from rig.servers import start_echo, start_http
from rig.traffic import TIMEOUT
from tests.namespace.test_tunnels import ask_head, connect_to, opened, reason

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "tcx", "btf")

PROXY, LINE = ("10.1.0.1", 3128), ("10.1.0.1", 7000)
OPEN, VAULT, API, BRIEF, KEPT = (f"10.2.0.{number}:7" for number in range(2, 7))
KEY = rsa.generate_private_key(65537, 2048)
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
TOKENS: tuple[tuple[str, str, str], ...] = (
    ("vault", "10.2.0.3", "keep"),
    ("brief", "10.2.0.5", "cut"),
    ("kept", "10.2.0.6", "keep"),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2) as built:
        addresses = [f"10.2.0.{number}" for number in range(2, 7)]
        built.server.add_address("eth0", *(f"{address}/24" for address in addresses[1:]))
        start_echo(built.server, 7, *addresses)
        built.clients[1].add_address("eth0", *(f"10.1.1.{number}/24" for number in range(3, 6)))
        start_http(built.server, 80, "10.2.0.2")
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        key = rig.files / "public.pem"
        key.write_bytes(PUBLIC)
        built.cli("init")
        for name, role in (("inside0", "inside"), ("inside1", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("service", "add", "lan", "--address", "10.1.0.0/23")
        built.cli("service", "add", "shop", "--address", "10.2.0.2")
        built.cli("service", "add", "api", "--address", "10.2.0.4", "--auth", "jwt",
                  "--jwt-key", str(key), "--jwt-algorithm", "RS256")  # fmt: skip
        for name, address, on_expiry in TOKENS:
            built.cli("service", "add", name, "--address", address, "--auth", "token")
            built.cli("mapping", "add", name, "--from", "lan", "--to", name, "--protocol", "tcp",
                      "--on-expiry", on_expiry)  # fmt: skip
        built.cli("mapping", "add", "shop", "--from", "lan", "--to", "shop,api", "--protocol", "tcp")
        built.cli("mapping", "add", "line", "--from", "lan", "--to", "vault", "--protocol", "tcp",
                  "--listen", "10.1.0.1:7000", "--ports", "7")  # fmt: skip
        built.cli("listener", "add", "explicit", "--bind", "10.1.0.1:3128")
        built.start()
        yield built


def issue(appliance: Appliance, service: str, *words: str) -> str:
    return appliance.cli("token", "issue", service, *words).stdout.strip()


def say(rig: Rig, where: tuple[str, int], data: bytes) -> bytes:
    """All that is answered, and that it ends."""

    def ask() -> bytes:
        with socket.create_connection(where, TIMEOUT) as sock:
            sock.settimeout(TIMEOUT)
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    return rig.client.call(ask)


def get(path: str, more: str = "") -> bytes:
    return f"GET http://10.2.0.2{path} HTTP/1.1\r\nHost: 10.2.0.2\r\n{more}\r\n".encode()


@pytest.mark.parametrize(
    ("said", "heard", "why"),
    [
        pytest.param(b"\x04\x01\0\x50\x0a\2\0\2\0", b"\0\x5b", "UNSUPPORTED", id="SOCKS4"),
        pytest.param(b"\5\0", b"\5\xff", "UNSUPPORTED", id="SOCKS5 without a method"),
        pytest.param(b"\5\1\0\5\1\0\x09abcd", b"\5\0\5\x08", "MALFORMED", id="SOCKS5, unknown address"),
        pytest.param(b"\5\1\0\5\1\0\3\4a\0bc\0\x50", b"\5\0\5\1", "MALFORMED", id="SOCKS5, NUL in a name"),
        pytest.param(b"\x16\3\1\2\0\1" + bytes(600), b"\x15\3\3\0\2\2", "MALFORMED", id="TLS"),
        pytest.param(b"GET http://a/" + b"a" * 20_000, b"HTTP/1.1 414", "MALFORMED", id="endless line"),
        pytest.param(get("/", "X: y\r\n" * 8000), b"HTTP/1.1 431", "MALFORMED", id="endless head"),
        pytest.param(
            get("/", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n",
            b"HTTP/1.1 400", "MALFORMED", id="two lengths",
        ),
        pytest.param(
            b"CONNECT 10.2.0.2:7 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde",
            b"HTTP/1.1 400", "MALFORMED", id="CONNECT with a body",
        ),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused(
    rig: Rig, appliance: Appliance, said: bytes, heard: bytes, why: str
) -> None:
    assert say(rig, PROXY, said).startswith(heard)

    def noted() -> bool:
        rows = appliance.json("flows", "--denied", "--limit", "1")
        return [(row["reason"], row["source"]) for row in rows] == [(why, "10.1.0.2")]

    wait_for(noted, f"{why} among what was refused")


@pytest.mark.parametrize("behind", [get("/") * 50, b"x" * 1_000_000])
def test_one_request_is_forwarded_and_nothing_behind_it(
    rig: Rig, appliance: Appliance, behind: bytes
) -> None:
    answer = say(rig, PROXY, get("/bytes/1000000") + behind)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) == 1_000_000


@pytest.mark.parametrize(
    ("token", "why"), [(b"a\0b", "MALFORMED"), (b"a\r\nb c", "MALFORMED"), (b"a" * 30_000, "AUTH_INVALID")]
)
def test_a_token_of_other_characters_or_too_many_is_none(
    rig: Rig, appliance: Appliance, token: bytes, why: str
) -> None:
    asked = b"CONNECT 10.2.0.3:7 HTTP/1.1\r\nHost: 10.2.0.3:7\r\nProxy-Authorization: Bearer "
    assert reason(say(rig, PROXY, asked + token + b"\r\n\r\n").decode()) == why
    refused = b"ERR MALFORMED\n" if len(token) > 20_000 else b"ERR AUTH_INVALID\n"
    assert say(rig, LINE, b"MARCHPROXY/1 " + token + b"\n") == refused


def test_a_jwt_is_what_its_service_says_and_not_what_it_says_itself(rig: Rig, appliance: Appliance) -> None:
    def keyed(key: bytes, data: bytes) -> bytes:
        return hmac.digest(key, data, "sha256")

    def asked(algorithm: str, sign: str) -> str:
        claims = {"exp": int(time.time()) + 600}
        parts = [urlsafe_b64encode(json.dumps(part).encode()) for part in ({"alg": algorithm}, claims)]
        data = b".".join(part.rstrip(b"=") for part in parts)
        makers: dict[str, Callable[[], bytes]] = {
            "key": lambda: KEY.sign(data, padding.PKCS1v15(), hashes.SHA256()),
            "public key": lambda: keyed(PUBLIC, data),
            "public key, stripped": lambda: keyed(PUBLIC.strip(), data),
            "nothing": lambda: b"",
        }
        signature = makers[sign]()
        jwt = (data + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()
        return rig.client.call(ask_head, PROXY, connect_to(API, jwt)).decode()

    assert " 200 " in asked("RS256", "key")
    for algorithm, sign in (
        ("none", "nothing"), ("None", "nothing"), ("RS256", "nothing"), ("HS256", "public key"),
        ("HS256", "public key, stripped"), ("RS256", "public key"), ("HS256", "key"),
    ):  # fmt: skip
        assert reason(asked(algorithm, sign)) == "AUTH_INVALID", (algorithm, sign)


@pytest.mark.parametrize("word", [b"", b"GET http://"], ids=["nothing", "half a request"])
def test_fifteen_thousand_who_say_too_little_cost_little_do_not_hurt_the_others_and_are_sent_away(
    rig: Rig, appliance: Appliance, word: bytes
) -> None:
    """From four addresses: no worker takes so many of one."""

    def crowd() -> list[socket.socket]:
        made = []
        for number in range(15_000):
            sock = socket.create_connection(PROXY, 20, (f"10.1.1.{2 + number % 4}", 0))
            sock.sendall(word)
            made.append(sock)
        return made

    before = memory(appliance)
    socks = rig.clients[1].call(crowd)
    try:
        for _ in range(10):
            assert say(rig, PROXY, get("/")).startswith(b"HTTP/1.1 200")
        assert memory(appliance) - before < 200 << 10
        for sock in (socks[0], socks[7_000], socks[-1]):
            sock.settimeout(60)
            assert _is_over(sock)
    finally:
        for sock in socks:
            sock.close()


def _is_over(sock: socket.socket) -> bool:
    """Whether it is told that it took too long, if anything, and then that it is over."""
    try:
        return not sock.recv(1000) or not sock.recv(1000)
    except ConnectionResetError:
        return True


def memory(appliance: Appliance) -> int:
    """KiB of the daemon and its workers."""
    return sum(int(found[1]) for pid in processes(appliance) if (found := resident(pid)))


def resident(pid: int) -> re.Match[str] | None:
    return re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())


def processes(appliance: Appliance) -> list[int]:
    """The daemon, and its workers behind it."""
    assert appliance.daemon is not None
    pid = appliance.daemon.pid
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def tunnel(rig: Rig, target: str, token: str = "") -> socket.socket:
    return rig.client.call(opened, PROXY, connect_to(target, token))


def talks(sock: socket.socket) -> bool:
    sock.sendall(b"tick")
    return sock.recv(4, socket.MSG_WAITALL) == b"tick"


def expect_reset(*socks: socket.socket) -> None:
    """Each of them hears it without having said anything."""
    for sock in socks:
        sock.settimeout(TIMEOUT)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def handed_off(appliance: Appliance, *socks: socket.socket) -> list[int]:
    """Their ids, once the kernel has them all."""
    ports = [sock.getsockname()[1] for sock in socks]

    def ids() -> list[int] | None:
        rows = {row["source_port"]: row for row in appliance.json("flows")}
        ripe = all(port in rows and rows[port]["reason"] == "HANDED_OFF" for port in ports)
        return [rows[port]["id"] for port in ports] if ripe else None

    return wait_for(ids, "the kernel to take over")


def test_a_tunnel_whose_token_expires_is_cut_where_the_mapping_says_so(
    rig: Rig, appliance: Appliance
) -> None:
    tokens = [issue(appliance, name, "--ttl", "6s") for name in ("brief", "kept")]
    with tunnel(rig, BRIEF, tokens[0]) as brief, tunnel(rig, KEPT, tokens[1]) as kept:
        expect_reset(brief)
        assert talks(kept)

        # Its token was issued a little later.
        def refused() -> bool:
            head = rig.client.call(ask_head, PROXY, connect_to(KEPT, tokens[1])).decode()
            return reason(head) == "AUTH_EXPIRED"

        wait_for(refused, "the other token to expire")
        assert talks(kept)


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("side", ["client", "server"])
def test_a_reset_passes(rig: Rig, appliance: Appliance, side: str, taken_over: bool) -> None:
    listening = rig.server.call(socket.create_server, ("10.2.0.2", 0))
    with listening:
        client = tunnel(rig, f"10.2.0.2:{listening.getsockname()[1]}")
        server, _ = listening.accept()
    if taken_over:
        handed_off(appliance, client)
    ending, hearing = (client, server) if side == "client" else (server, client)
    ending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ending.close()
    with hearing:
        expect_reset(hearing)


def test_an_upload_that_ends_by_half_close_arrives_whole_at_any_moment_of_the_handoff(
    rig: Rig, appliance: Appliance
) -> None:
    """A tunnel is due with its first bytes above 64 kB, and is looked at four times a second."""

    def upload(size: int, pause: float) -> bool:
        data, got = os.urandom(size), bytearray()
        with opened(PROXY, connect_to(OPEN)) as sock:
            sock.sendall(data[: size // 2])
            time.sleep(pause)
            sock.sendall(data[size // 2 :])
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                got += piece
        return hashlib.sha256(got).digest() == hashlib.sha256(data).digest()

    for number in range(20):
        assert rig.client.call(upload, 20_000 + number * 10_007, number * 0.02)


def test_a_dead_worker_takes_its_own_tunnels_and_no_others(rig: Rig, appliance: Appliance) -> None:
    old = [tunnel(rig, OPEN) for _ in range(4)]
    handed_off(appliance, *old)
    before = processes(appliance)
    os.kill(before[1], signal.SIGKILL)
    assert all(map(talks, old))
    wait_for(lambda: not is_listening(before[1]), "it to be gone")
    # Whoever comes now is served by the others.
    for _ in range(8):
        assert say(rig, PROXY, get("/")).startswith(b"HTTP/1.1 200")
    for sock in old:
        sock.close()

    def replaced() -> bool:
        now = processes(appliance)
        return before[1] not in now and len(now) == len(before)

    wait_for(replaced, "a new worker")


def test_tunnels_outlive_a_dead_daemon_and_are_ended_by_the_next(rig: Rig, appliance: Appliance) -> None:
    token = issue(appliance, "vault")
    old = [tunnel(rig, VAULT, token) for _ in range(3)]
    ids = handed_off(appliance, *old)
    young = [tunnel(rig, OPEN) for _ in range(4)]
    workers = processes(appliance)[1:]
    appliance.kill9()
    # The young ones are a worker's, which lets them finish.
    wait_for(lambda: not any(map(is_listening, workers)), "the workers to notice")
    for _ in range(3):
        assert all(map(talks, (*old, *young)))
        time.sleep(0.3)
    for sock in young:
        sock.close()
    appliance.start()
    rows = {row["id"]: row for row in appliance.json("flows")}
    assert {(rows[id]["mapping"], rows[id]["destination_service"]) for id in ids} == {("vault", "vault")}
    appliance.cli("flows", "cut", str(ids[0]))
    expect_reset(old[0])
    assert talks(old[1])
    appliance.cli("token", "revoke", "vault", "--now")
    expect_reset(*old[1:])
    for sock in old:
        sock.close()


def is_listening(pid: int) -> bool:
    """Whether a process still has a listening socket of the proxy."""
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()
    except FileNotFoundError:
        return False
    listening = {row.split()[9] for row in rows[1:] if row.split()[3] == "0A"}
    return any(link.removeprefix("socket:[").removesuffix("]") in listening for link in links)
