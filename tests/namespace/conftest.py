"""A whole appliance between real hosts, defined by the real command."""

import contextlib
import socket
from collections.abc import Generator, Iterator

import pytest

from rig import Appliance, Rig, RigError
from rig.servers import start_echo, start_http

# What the first client asks for; `denied` has a listener that only the second client may use.
SERVICES: tuple[tuple[str, ...], ...] = (
    ("clients", "--address", "10.1.0.0/24,fd01::/64"),
    ("others", "--address", "10.1.1.0/24"),
    ("web", "--address", "10.2.0.2,fd02::2", "--port", "80"),
    ("farm", "--address", "10.2.0.2,10.2.1.2,10.2.2.2", "--port", "80"),
    ("echo", "--address", "10.2.0.2,fd02::2", "--port", "7"),
)
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("web", "--from", "clients", "--to", "web", "--protocol", "tcp", "--listen", "*:8080"),
    ("farm", "--from", "clients", "--to", "farm", "--protocol", "tcp", "--listen", "10.1.0.1:8081"),
    ("echo", "--from", "clients", "--to", "echo", "--protocol", "tcp,udp", "--listen", "*:7007"),
    ("denied", "--from", "others", "--to", "web", "--protocol", "tcp", "--listen", "10.1.0.1:8082"),
    (
        "forbidden", "--from", "clients", "--to", "web", "--protocol", "tcp", "--listen", "10.1.0.1:8083",
        "--action", "deny",
    ),
)  # fmt: skip


def define(appliance: Appliance, *, mode: str = "auto") -> None:
    """Everything above, on every link of the middle host."""
    appliance.cli("init")
    for name in appliance.host.call(_interfaces):
        role = "inside" if name.startswith("inside") else "outside"
        appliance.cli("interface", "add", name, "--role", role, "--mode", mode)
    for words in SERVICES:
        appliance.cli("service", "add", *words)
    for words in MAPPINGS:
        appliance.cli("mapping", "add", *words)


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex() if name != "lo"]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=2, servers=3) as built:
        for server in built.servers:
            start_http(server)
        start_echo(built.server)
        built.suit_xdp()
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig) as built:
        define(built)
        built.start()
        yield built


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure here says what the appliance said, since some show once in a hundred runs."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name, value in item.funcargs.items():
            if isinstance(value, Appliance):
                report.sections += _what_it_says(name, value)
    return report


def _what_it_says(name: str, appliance: Appliance) -> Iterator[tuple[str, str]]:
    if appliance.daemon is not None:
        yield f"{name}: end of the daemon's log", appliance.daemon.output()[-8000:]
    for words in (["status"], ["flows", "--limit", "20"], ["flows", "--denied"]):
        with contextlib.suppress(RigError):
            done = appliance.cli(*words, check=False)
            yield f"{name}: marchproxy {' '.join(words)}", done.stdout + done.stderr
