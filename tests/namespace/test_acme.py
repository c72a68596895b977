"""A CA that others wrote, Caddy's, signs for an appliance between real hosts, and its listener shows that."""

import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Appliance, Process, Rig, wait_for
from rig.servers import start_http

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl"])

CADDY = Path(sys.executable).parent / "caddy"
DIRECTORY = "https://10.2.0.2:9443/acme/local/directory"
OUTSIDE = "10.2.0.1"
"""Of the appliance, where the CA looks for it."""


@pytest.fixture(name="rig", scope="module")
def _rig() -> Iterator[Rig]:
    with Rig() as built:
        start_http(built.server)
        yield built


@pytest.fixture(name="root", scope="module")
def _root(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What clients trust: the root of the CA, which runs beside the server."""
    folder = tmp_path_factory.mktemp("caddy")
    (folder / "Caddyfile").write_text(f"""
        {{
            admin off
            persist_config off
            skip_install_trust
            auto_https disable_redirects
            storage file_system {folder}
        }}
        https://10.2.0.2:9443 {{
            tls internal
            acme_server {{
                challenges http-01 tls-alpn-01
                lifetime 2h
            }}
        }}
    """)
    argv = [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    running = rig.server.popen(argv, env={"HOME": str(folder), "XDG_DATA_HOME": str(folder)})
    wait_for(lambda: serves(rig, running), "Caddy", timeout=60)
    return folder / "pki/authorities/local/root.crt"


@pytest.fixture(name="appliance", scope="module")
def _appliance(rig: Rig, root: Path) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        built.cli("init")
        built.cli("interface", "add", "inside0", "--role", "inside")
        built.cli("interface", "add", "outside0", "--role", "outside")
        built.cli("service", "add", "web", "--address", "10.2.0.2", "--port", "80")
        built.start()
        yield built


def serves(rig: Rig, running: Process) -> bool:
    assert running.running, running.tail()
    asked = rig.server.run(["curl", "-sko", "/dev/null", DIRECTORY], check=False)
    return asked.returncode == 0


def ordered(appliance: Appliance, root: Path, listen: str) -> None:
    appliance.cli(
        *("cert", "source", "web", "--acme", DIRECTORY, "--hosts", OUTSIDE, "--ca", str(root)),
        *("--contact", "admin@example.com", "--agree-terms", "--challenge-listen", listen),
    )


def shown(rig: Rig, root: Path, port: int = 8443) -> str:
    """The certificate of the listener, to a client that trusts the CA and nobody else."""

    return rig.client.call(ssl.get_server_certificate, (OUTSIDE, port), ca_certs=str(root), timeout=10)


def trusts(rig: Rig, root: Path, port: int) -> bool:
    """Whether a client that trusts the CA and nobody else gets a page there."""
    argv = ["curl", "-sS", "-m", "10", "--cacert", str(root), f"https://{OUTSIDE}:{port}/"]
    return rig.client.run(argv, check=False).returncode == 0


def fingerprint(appliance: Appliance) -> str:
    found: str = json.loads(appliance.cli("cert", "show", "proxy", "--output", "json").stdout)["fingerprint"]
    return found


def test_it_is_signed_shown_and_renewed(rig: Rig, appliance: Appliance, root: Path) -> None:
    ordered(appliance, root, f"{OUTSIDE}:80")
    words = ("--from", "all", "--to", "web", "--protocol", "http", "--listen", f"{OUTSIDE}:8443")
    appliance.cli("mapping", "add", "web", *words, "--tls", "web")
    assert trusts(rig, root, 8443)
    first = shown(rig, root)
    appliance.cli("cert", "pull", "web", "--now")
    wait_for(lambda: shown(rig, root) != first, "the renewed certificate")


def test_where_a_listener_has_port_80_a_mapping_leads_to_the_challenge(
    rig: Rig, appliance: Appliance, root: Path
) -> None:
    words = ("--from", "all", "--protocol", "http", "--listen", f"{OUTSIDE}:80")
    appliance.cli("service", "add", "challenges", "--address", "127.0.0.1", "--port", "8402")
    appliance.cli("mapping", "add", "plain", *words, "--to", "web")
    taken = appliance.cli(
        *("cert", "source", "two", "--acme", DIRECTORY, "--hosts", OUTSIDE, "--ca", str(root)),
        *("--challenge-listen", f"{OUTSIDE}:80"),
        check=False,
    )
    assert (taken.returncode, "'plain' listens at" in taken.stderr) == (4, True)
    prefix = ("--path-prefix", "/.well-known/acme-challenge/")
    appliance.cli("mapping", "add", "challenges", *words, "--to", "challenges", *prefix)
    ordered(appliance, root, "127.0.0.1:8402")


def test_the_listener_that_shows_it_answers_for_it(rig: Rig, appliance: Appliance, root: Path) -> None:
    """TLS-ALPN-01: the CA comes to port 443, where others are served meanwhile."""
    appliance.cli("cert", "generate", "shop", "--host", OUTSIDE)
    words = ("--from", "all", "--to", "web", "--protocol", "http", "--listen", f"{OUTSIDE}:443")
    appliance.cli("mapping", "add", "shop", *words, "--tls", "shop")
    source = ("cert", "source", "shop", "--acme", DIRECTORY, "--hosts", OUTSIDE, "--ca", str(root))
    proven = ("--agree-terms", "--challenge", "tls-alpn-01")
    refused = appliance.cli(*source, *proven, "--challenge-listen", f"{OUTSIDE}:443", check=False)
    assert (refused.returncode, "leave --challenge-listen out" in refused.stderr) == (4, True)
    appliance.cli(*source, *proven)
    wait_for(lambda: trusts(rig, root, 443), "the certificate that was ordered")
    assert not list(appliance.runtime.glob("acme.*"))


def test_a_proxy_answers_for_its_own(appliance: Appliance, root: Path) -> None:
    """The same where what is listened at are tunnels; and a port of its own where nobody listens."""
    appliance.cli("mapping", "remove", "shop", "--yes")
    source = ("cert", "source", "proxy", "--acme", DIRECTORY, "--hosts", OUTSIDE, "--ca", str(root))
    proven = ("--agree-terms", "--challenge", "tls-alpn-01")
    appliance.cli(*source, *proven, "--challenge-listen", f"{OUTSIDE}:443")
    first = fingerprint(appliance)
    appliance.cli("listener", "add", "explicit", "--bind", f"{OUTSIDE}:443", "--tls", "proxy")
    appliance.cli(*source, *proven)
    assert fingerprint(appliance) != first
