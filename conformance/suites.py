"""The suites, each against an appliance between namespaces, and what came of them."""

import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from rig import Appliance, Host, Rig
from rig.host import checked
from rig.network import LISTEN4
from rig.servers import ROOT, start_http

LARGE = ("9.*", "12.*", "13.*")
"""Cases of the WebSocket suite that carry up to 16 MiB, and a thousand compressed messages each: minutes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A suite that was run, or why it was not."""

    suite: str
    against: str
    passed: int = 0
    failed: tuple[str, ...] = ()
    """Names of cases."""
    said: str = ""
    """What has to be said about the rest; of one that was not run, why."""


def site(rig: Rig, appliance: Appliance) -> None:
    """HTTP in the clear on 8080, under TLS and over QUIC on 8443, with a server of WebSockets below /ws."""
    start_http(rig.server, 80)
    echo = [sys.executable, "-m", "conformance.echo", rig.server.ipv4, "81"]
    rig.server.popen(echo, env={"PYTHONPATH": str(ROOT)}).expect("ready")
    appliance.cli("init")
    appliance.cli("interface", "add", "inside0", "--role", "inside")
    appliance.cli("interface", "add", "outside0", "--role", "outside")
    appliance.cli("cert", "generate", "www", "--host", LISTEN4)
    appliance.cli("service", "add", "web", "--address", rig.server.ipv4, "--port", "80")
    appliance.cli("service", "add", "echo", "--address", rig.server.ipv4, "--port", "81")
    for name, flags in (
        ("clear", ("--protocol", "http", "--listen", f"{LISTEN4}:8080")),
        ("secure", ("--protocol", "https,quic", "--listen", f"{LISTEN4}:8443", "--tls", "www")),
    ):
        appliance.cli("mapping", "add", name, "--from", "all", "--to", "web", *flags)
        appliance.cli(
            "mapping", "add", f"{name}-ws", "--from", "all", "--to", "echo", *flags, "--path-prefix", "/ws"
        )
    appliance.start()


def h2spec(rig: Rig) -> Iterator[Outcome]:
    """HTTP/2: RFC 9113's predecessor, section by section."""
    program = os.environ.get("H2SPEC") or shutil.which("h2spec")
    if program is None:
        yield Outcome("h2spec", "HTTP/2", said="not run: it is not on PATH, and H2SPEC does not name it")
        return
    for against, flags in (
        ("HTTP/2 in the clear", ("-p", "8080")),
        ("HTTP/2 under TLS", ("-t", "-k", "-p", "8443")),
    ):
        report = rig.files / "h2spec.xml"
        argv = [program, "-h", LISTEN4, *flags, "-o", "3", "-j", str(report)]
        rig.client.run(argv, check=False, timeout=500)
        # Written by a program that we started.
        cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314
        wrong = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
        failed = tuple(
            f"{case.get('package', '').rpartition('/')[2]}: {case.get('classname')}" for case in wrong
        )
        yield Outcome("h2spec", against, len(cases) - len(wrong), failed)


def websockets(rig: Rig, *, everything: bool) -> Iterator[Outcome]:
    """WebSockets: the cases of Autobahn, against a server alone and through MarchProxy, by each way to it.

    The suite's client speaks HTTP/1.1 in the clear only: a bridge makes the others of that.
    """
    named = f"Autobahn's cases, by kosoku {version('kosoku')}"
    places: tuple[tuple[str, Host, str], ...] = (
        (f"aiohttp {version('aiohttp')} alone", rig.server, f"ws://{rig.server.ipv4}:81/ws"),
        ("the same through MarchProxy", rig.client, f"ws://{LISTEN4}:8080/ws"),
        *(
            (f"the same through MarchProxy, {said}", rig.client, bridge(rig, way, port))
            for way, port, said in (
                ("tls", 9101, "under TLS"),
                ("h2", 9102, "over HTTP/2"),
                ("h3", 9103, "over HTTP/3"),
            )
        ),
    )
    for against, host, url in places:
        folder = rig.files / "websockets"
        shutil.rmtree(folder, ignore_errors=True)
        left = [] if everything else [word for each in LARGE for word in ("-x", each)]
        argv = [str(Path(sys.executable).parent / "kosoku"), "-p", "4", "-o", str(folder), *left, url]
        host.run(argv, timeout=3600, check=False)
        [found] = json.loads((folder / "index.json").read_text()).values()
        kinds = Counter(each["behavior"] for each in found.values())
        bad = ("FAILED", "ERROR", "WRONG CODE", "UNCLEAN")
        failed = [
            name for name, each in found.items() if each["behavior"] in bad or each["behaviorClose"] in bad
        ]
        others = ", ".join(
            f"{count} {kind.lower()}" for kind, count in sorted(kinds.items()) if kind not in ("OK", *bad)
        )
        said = f"of these: {others}" if others else ""
        yield Outcome(named, against, len(found) - len(failed), tuple(failed), said)


def bridge(rig: Rig, way: str, port: int) -> str:
    """Where WebSockets in the clear become those of another way, beside the client."""
    argv = [sys.executable, "-m", "conformance.bridge", way, str(port), LISTEN4, "8443"]
    rig.client.popen(argv, env={"PYTHONPATH": str(ROOT)}).expect("ready")
    return f"ws://127.0.0.1:{port}/ws"


def vectors() -> Iterator[Outcome]:
    """What is part of the tests: vectors of llhttp and h11, and servers that others wrote."""
    for suite, against, test in (
        ("llhttp 9.4.2 and h11 0.16.0, their vectors", "HTTP/1.1 requests and answers", "test_vectors.py"),
        ("nginx, Caddy, uvicorn, Hypercorn", "the table above", "test_upstreams.py"),
    ):
        argv = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"tests/dataplane/http/{test}"]
        done = checked(argv, timeout=600, check=False)
        passed = re.search(r"(\d+) passed", done.stdout)
        failed = re.findall(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)
        yield Outcome(suite, against, int(passed[1]) if passed else 0, tuple(failed))


def run(*, everything: bool) -> Sequence[Outcome]:
    """All of them."""
    found = list(vectors())
    with Rig(clients=1) as rig, Appliance(rig) as appliance:
        site(rig, appliance)
        found += h2spec(rig)
        found += websockets(rig, everything=everything)
    return found
