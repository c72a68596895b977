"""The proxies that HTTP is measured against: each is told where to listen, and what the server is."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.bed import Bed
from benchmarks.httpproxies import (
    Caddy,
    EnvoyHttp,
    HAProxyHttp,
    HttpProxy,
    Mitmproxy,
    NginxHttp,
    ProxyPy,
    Traefik,
    certificate,
)
from marchproxy.store.x509 import hosts_of

pytestmark = pytest.mark.requires(commands=["openssl"])


@pytest.fixture
def started() -> list[list[str]]:
    return []


@pytest.fixture
def bed(tmp_path: Path, started: list[list[str]]) -> Bed:
    def popen(argv: list[str], **_: Any) -> object:
        started.append(argv)
        return SimpleNamespace(pid=1)

    middle = SimpleNamespace(popen=popen)
    server = SimpleNamespace(ipv4="10.2.0.2")
    return cast(Bed, SimpleNamespace(rig=SimpleNamespace(middle=middle, server=server, files=tmp_path)))


def test_all_share_one_certificate(bed: Bed) -> None:
    chain, key = certificate(bed)
    assert hosts_of(chain.read_text()) == ("bench.test", "10.1.0.1")
    before = chain.read_bytes(), key.read_bytes()
    assert tuple(path.read_bytes() for path in certificate(bed)) == before


@pytest.mark.parametrize("kind", [HAProxyHttp, NginxHttp, EnvoyHttp, Caddy, Traefik, ProxyPy, Mitmproxy])
def test_each_is_told_where_the_server_is(
    kind: type[HttpProxy], bed: Bed, tmp_path: Path, started: list[list[str]]
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    kind(bed).start(folder)
    [argv] = started
    said = " ".join(argv) + "".join(path.read_text() for path in folder.iterdir() if path.suffix != ".pem")
    assert "10.2.0.2" in said
    assert "10.1.0.1" in said
    assert ("8443" in said) is kind.secure
    assert ("8444" in said) is kind.http3
    assert said.count("8090") == 2 * kind.websocket


def test_envoy_speaks_tls_at_one_listener_and_quic_at_another(bed: Bed, tmp_path: Path) -> None:
    EnvoyHttp(bed).start(tmp_path)
    listeners = json.loads((tmp_path / "envoy.json").read_text())["static_resources"]["listeners"]
    chains = [each["filter_chains"][0] for each in listeners]
    sockets = [each.get("transport_socket", {}).get("name") for each in chains]
    assert sockets == [None, "tls", None, "quic"]


def test_envoy_passes_websockets_at_a_third(bed: Bed, tmp_path: Path) -> None:
    EnvoyHttp(bed).start(tmp_path)
    listeners = json.loads((tmp_path / "envoy.json").read_text())["static_resources"]["listeners"]
    managers = [each["filter_chains"][0]["filters"][0]["typed_config"] for each in listeners]
    assert ["upgrade_configs" in each for each in managers] == [False, False, True, False]


def test_envoy_speaks_http3_by_udp(bed: Bed, tmp_path: Path) -> None:
    EnvoyHttp(bed).start(tmp_path)
    listeners = json.loads((tmp_path / "envoy.json").read_text())["static_resources"]["listeners"]
    by_udp = ["udp_listener_config" in each for each in listeners]
    assert by_udp == [each["address"]["socket_address"].get("protocol") == "UDP" for each in listeners]
    assert by_udp == [False, False, False, True]
    assert listeners[3]["filter_chains"][0]["filters"][0]["typed_config"]["codec_type"] == "HTTP3"
