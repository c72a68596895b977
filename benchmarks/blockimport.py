"""How long `marchproxy block import` takes an operator: the whole command, until the running daemon has it.

Memory is what command and daemon had resident at most, each: VmHWM of proc(5), set back before.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

from rig import Appliance, Process, Rig, RigError

GOAL_SECONDS = 5.0
GOAL_MEGABYTES = 300.0
PATIENCE = 120.0
"""Seconds after which a command is given up."""
_LOOK = 0.01
_FORGET_PEAK = "5"
"""What clear_refs of proc(5) takes to set VmHWM back (kernel 4.0)."""


@dataclass(frozen=True, slots=True)
class Import:
    """One command."""

    form: str
    """How the file is written."""
    seconds: float
    command: float
    """Megabytes resident at most."""
    daemon: float

    @property
    def met(self) -> bool:
        """Whether the goals are reached."""
        return self.seconds <= GOAL_SECONDS and max(self.command, self.daemon) <= GOAL_MEGABYTES

    def text(self) -> str:
        """One line."""
        return (
            f"{self.form}: {self.seconds:.1f} s, at most {self.command:.0f} MB in the command"
            f" and {self.daemon:.0f} MB in the daemon"
        )


def plain(prefixes: Sequence[str]) -> Iterator[str]:
    """One a line."""
    return (f"{prefix}\n" for prefix in prefixes)


def csv(prefixes: Sequence[str]) -> Iterator[str]:
    """With a reason and an expiry for each."""
    yield "address,reason,expires\n"
    for at, prefix in enumerate(prefixes):
        yield f"{prefix},seen by sensor {at % 7},2099-12-31T00:00:00Z\n"


def ipset(prefixes: Sequence[str]) -> Iterator[str]:
    """As `ipset save` writes it."""
    for name, family, some in (("four", "inet", _of(4, prefixes)), ("six", "inet6", _of(6, prefixes))):
        yield f"create {name} hash:net family {family} hashsize 65536 maxelem 1000000 timeout 0\n"
        for prefix in some:
            yield f"add {name} {prefix} timeout 0\n"


def nft(prefixes: Sequence[str]) -> Iterator[str]:
    """As `nft list ruleset` writes it."""
    yield "table inet filter {\n"
    for name, kind, some in (("four", "ipv4_addr", _of(4, prefixes)), ("six", "ipv6_addr", _of(6, prefixes))):
        yield f"\tset {name} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\telements = {{ "
        yield ",\n\t\t\t     ".join(", ".join(line) for line in batched(some, 2))
        yield " }\n\t}\n"
    yield "}\n"


FORMS: dict[str, Callable[[Sequence[str]], Iterator[str]]] = {
    "plain text": plain,
    "CSV": csv,
    "ipset": ipset,
    "nftables": nft,
}


def imports(prefixes: Callable[[random.Random], Sequence[str]]) -> Iterator[Import]:
    """A command for every form, each with other prefixes: contents that are known would be half the work."""
    with Rig() as rig, _appliance(rig) as appliance:
        for seed, (form, write) in enumerate(FORMS.items()):
            file = rig.files / "list"
            with file.open("w") as stream:
                stream.writelines(write(prefixes(random.Random(seed))))
            yield _measured(appliance, form, file)
            appliance.cli("block", "remove", "list", "--yes")


@contextmanager
def _appliance(rig: Rig) -> Iterator[Appliance]:
    appliance = Appliance(rig)
    appliance.cli("init")
    for interface, role in (("inside0", "inside"), ("outside0", "outside")):
        appliance.cli("interface", "add", interface, "--role", role)
    with appliance:
        appliance.start()
        yield appliance


def _measured(appliance: Appliance, form: str, file: Path) -> Import:
    daemon = appliance.daemon
    assert daemon is not None
    Path(f"/proc/{daemon.pid}/clear_refs").write_text(_FORGET_PEAK)
    began = time.monotonic()
    command = appliance.host.popen([*appliance.command, "block", "import", str(file)], env=appliance.env)
    peak = _peak_until_end(command, began + PATIENCE)
    seconds = time.monotonic() - began
    if command.wait():
        raise RigError(f"block import of {form} failed", hint=command.tail())
    return Import(form, seconds, peak, _peak(daemon))


def _peak_until_end(process: Process, deadline: float) -> float:
    peak = 0.0
    while process.running:
        if time.monotonic() > deadline:
            raise RigError(f"{process.argv[-1]} still runs after {PATIENCE:g} s", hint=process.tail())
        peak = max(peak, _peak(process))
        time.sleep(_LOOK)
    return peak


def _peak(process: Process) -> float:
    """Megabytes; 0 for one that has just ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)


def _of(version: int, prefixes: Sequence[str]) -> list[str]:
    return [prefix for prefix in prefixes if (":" in prefix) == (version == 6)]
