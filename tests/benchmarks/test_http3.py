"""HTTP/3: what the client counted is the figure, and contenders speak it where they are asked."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks import http3
from benchmarks.bed import ANSWER, Bed
from benchmarks.httpproxies import NAME, QUIC, SECURE, Caddy, MarchProxyHttp, Reader, certificate
from rig import Rig
from tests.dataplane.http.http3.peer import Answered, Http3Client


def test_answers_a_second_are_those_of_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], int]] = []

    @contextmanager
    def opened(_: Bed, argv: list[str], seconds: int) -> Iterator[Callable[[], str]]:
        asked.append((argv, seconds))
        yield lambda: json.dumps({"count": 9000, "seconds": 2.25})

    monkeypatch.setattr(http3, "opened", opened)
    monkeypatch.setattr(http3, "certificate", lambda _: (Path("/chain"), Path("/key")))
    contender = cast(Reader, SimpleNamespace(bed=None, target="10.1.0.1"))
    with http3.kept(contender, 2) as answers:
        assert answers() == 4000
    program = [sys.executable, "-m", "benchmarks.http3client"]
    assert asked == [([*program, "10.1.0.1", "8444", "2", "16", "/chain"], 2)]


@pytest.mark.requires("root", "bpf", "netns", "veth", "bpffs", commands=["clang", "curl", "nginx", "openssl"])
@pytest.mark.parametrize("kind", [MarchProxyHttp, Caddy])
def test_contenders_speak_it_at_a_port_that_is_named_to_who_asks_there_by_tcp(
    kind: type[MarchProxyHttp | Caddy],
) -> None:
    with Rig() as rig:
        bed = Bed(rig)
        contender = kind(bed)
        with contender.standing():
            contender.wait_ready()
            found = rig.client.call(lambda: asyncio.run(_answer(bed, contender.target)))
            assert (found.status, found.body) == (200, ANSWER.encode())
            assert f'alt-svc: h3=":{QUIC}"' in _asked_by_address(rig, contender.target, QUIC)
            # What is measured by TCP is not to tell of HTTP/3 where others do not: only Caddy does by itself.
            secure = _asked_by_address(rig, contender.target, SECURE)
            assert ("alt-svc" in secure) is (kind is Caddy)
            # wrk and s_time name no host: what is measured is the server's answer all the same.
            assert secure.endswith(ANSWER)


async def _answer(bed: Bed, target: str) -> Answered:
    chain, _ = certificate(bed)
    client = Http3Client(QUIC, NAME, target, bed.rig.client.ipv4, chain.read_text())
    try:
        await client.connect()
        return await client.get("/", NAME)
    finally:
        client.close()


def _asked_by_address(rig: Rig, target: str, port: int) -> str:
    words = ["curl", "--silent", "--show-error", "--insecure", "--include", "--max-time", "20"]
    return rig.client.run([*words, f"https://{target}:{port}/"]).stdout.lower()
