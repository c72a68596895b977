"""What the checks look at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marchproxy.bpf.places import PINS
from marchproxy.model.address import HostName, IPAddress
from marchproxy.model.appliance import DEFAULT_SETTINGS
from marchproxy.model.certificate import Certificate
from marchproxy.model.entities import Interface
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An appliance and its machine. What is missing could not be had."""

    snapshot: Snapshot | None = None
    store_problem: MarchproxyError | None = None
    """Why there is no snapshot."""
    certificates: Sequence[Certificate] = ()
    """All that the store has."""
    policy_errors: int = 0
    """What `check` calls errors."""
    status: Mapping[str, Any] | None = None
    """The daemon's `/v1/status`."""
    daemon_problem: MarchproxyError | None = None
    """Why there is no status."""
    paths: Sequence[IPAddress] = ()
    """Addresses to which the way is looked at."""
    store_file: Path | None = None
    """None: the store is on a server."""
    runtime: Path = Path("/run/marchproxy")
    bpffs: Path = PINS
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")

    @property
    def interfaces(self) -> Sequence[Interface]:
        """Those that are configured."""
        return self.snapshot.interfaces if self.snapshot else ()

    @property
    def host_names(self) -> Sequence[str]:
        """Those that services have, without wildcards: nobody can look a wildcard up."""
        found: set[str] = set()
        for cluster in self.snapshot.clusters if self.snapshot else ():
            for service in cluster.services:
                found |= {each.name for each in service.addresses if isinstance(each, HostName)}
        return sorted(name for name in found if not name.startswith("*"))

    @property
    def resolvers(self) -> Sequence[str]:
        """DNS servers that are configured for the appliance alone."""
        return (self.snapshot.settings if self.snapshot else DEFAULT_SETTINGS).resolvers

    @property
    def uses_bpf(self) -> bool:
        """Whether the daemon carries traffic in the kernel, or would."""
        return self.status is None or self.status["tier"]["name"] != "sockets"

    def sysctl(self, name: str) -> str:
        """A kernel setting, such as `net/ipv4/ip_forward`; empty where there is none."""
        return read(self.proc / "sys" / name)

    def lines(self, name: str) -> Iterator[list[str]]:
        """The words of each line of a file of /proc; none where it does not exist."""
        for line in read(self.proc / name).splitlines():
            yield line.split()


def read(path: Path) -> str:
    """The text of a small file of the kernel's without the last newline; empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
