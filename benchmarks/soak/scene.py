"""What a run takes place in, and faults act on: hosts, links, servers, the appliance, what is configured."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak.account import Account, account
from benchmarks.soak.change import Operator
from rig import Appliance, Process, Rig, RigError
from rig.servers import start_dns, start_echo, start_http
from rig.wire import Impairment, Wire, bad_link

CONFIGURATION = """
interfaces:
  - {name: inside0, role: inside}
  - {name: outside0, role: outside, masquerade: true}
services:
  - {name: lan, addresses: [10.1.0.0/24]}
  - {name: echo, addresses: [10.2.0.2], port: 7}
  - {name: pool, addresses: [10.2.0.3, 10.2.0.4], port: 7, health: tcp, health_interval: 1}
  - {name: named, addresses: [echo.soak.test], port: 7}
  - {name: web, addresses: [10.2.0.2], port: 80}
  - {name: far, addresses: [10.2.0.2]}
  - {name: guarded, addresses: [10.2.0.2], auth: token}
  - {name: idle, addresses: [198.51.100.200], port: 9}
mappings:
  - {name: echo, sources: [lan], destinations: [echo], protocols: [tcp, udp], listen: "10.1.0.1:7007"}
  - {name: pool, sources: [lan], destinations: [pool], protocols: [tcp], listen: "10.1.0.1:7008"}
  - {name: named, sources: [lan], destinations: [named], protocols: [tcp], listen: "10.1.0.1:7009"}
  - {name: gateway, sources: [lan], destinations: [far], protocols: [tcp, udp], ports: "7"}
  - {name: web, sources: [lan], destinations: [web], protocols: [http], listen: "10.1.0.1:8080"}
  - {name: ban, sources: [lan], destinations: [web], protocols: [http], listen: "10.1.0.1:8080",
     path_prefix: /admin, action: deny}
  - {name: tunnels, sources: [lan], destinations: [guarded], protocols: [tcp], ports: "7",
     auth_required: true, priority: 200}
listeners:
  - {kind: explicit, bind: "10.1.0.1:3128"}
settings:
  resolvers: ["10.2.0.2"]
  private_answers: [echo.soak.test]
"""
STORE = 32
"""Megabytes of the file system that the store is on where its disk is to become full."""
READY = 60.0
"""Seconds in which a daemon has to serve."""
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


@dataclass(slots=True)
class Scene:
    """Everything, and whoever may change it."""

    rig: Rig
    appliance: Appliance
    account: Account
    wires: dict[str, Wire]
    """By the middle's interface; none where the links are to be left alone."""
    member: Process
    """One of the two backends of `pool`."""
    dns: Process
    clock: Path | None = None
    """What says how far ahead the appliance's wall clock is, as faketime reads it."""
    disk: Path | None = None
    """The folder of the store where that is a file system of its own."""
    stop: threading.Event = field(default_factory=threading.Event)
    operator: Operator | None = None

    def wait(self, seconds: float) -> None:
        """That long, or until the run ends."""
        self.stop.wait(seconds)

    def start(self) -> None:
        """Start the daemon, and be patient: the machine has much to do."""
        self.appliance.spawn()
        self.appliance.wait_ready(READY)

    def start_member(self) -> None:
        """Start the backend of `pool` that can be ended."""
        self.member = start_echo(self.rig.server, 7, "10.2.0.4")

    def start_dns(self) -> None:
        """Start the only DNS server."""
        self.dns = start_dns(self.rig.server, 53, "10.2.0.2")


@contextmanager
def scene(*, wires: bool = False, clock: bool = False, disk: bool = False) -> Iterator[Scene]:
    """Built, configured and running. Options: what faults need that costs something without them.

    Raises `MarchproxyError` where it cannot be.
    """
    with ExitStack() as held:
        counted = held.enter_context(account("soak"))
        rig = held.enter_context(Rig())
        links = {
            side: held.enter_context(bad_link(rig, host, Impairment()))
            for side, host in (("inside0", rig.client), ("outside0", rig.server))
            if wires
        }
        appliance = held.enter_context(Appliance(rig, name="soak"))
        appliance.env["MARCHPROXY_DRAIN_SECONDS"] = "2"
        rig.server.add_address("eth0", "10.2.0.3/24", "10.2.0.4/24")
        start_echo(rig.server, 7, rig.server.ipv4, "10.2.0.3")
        start_http(rig.server)
        made = Scene(
            rig,
            appliance,
            counted,
            links,
            start_echo(rig.server, 7, "10.2.0.4"),
            start_dns(rig.server, 53, "10.2.0.2"),
            _clock(rig, appliance) if clock else None,
            held.enter_context(_small_disk(appliance.state)) if disk else None,
        )
        appliance.cli("init")
        appliance.cli("apply", "-f", "-", "--yes", stdin=CONFIGURATION)
        made.start()
        yield made


def _clock(rig: Rig, appliance: Appliance) -> Path:
    library = next(Path("/").glob(FAKETIME.removeprefix("/")), None)
    if library is None:
        raise RigError("libfaketime is not installed", hint="apt-get install faketime, or leave `clock` out")
    file = rig.files / "clock"
    file.write_text("+0\n")
    appliance.env |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return file


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    mount = shutil.which("mount") or "/bin/mount"
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={STORE}m,mode=700", "tmpfs", folder], check=False, text=True,
        capture_output=True,
    )  # fmt: skip
    if made.returncode:
        raise RigError("no file system for the store", hint=made.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run([shutil.which("umount") or "/bin/umount", "-l", folder], check=False)
