"""Kernel settings of the network, changed in a way that can be taken back."""

import json
import os
import re
from pathlib import Path

from marchproxy.model.errors import NotPermitted

ROOT = Path("/proc/sys")

_OURS = re.compile(
    r"net/ipv[46]/conf/[^/]+/(forwarding|accept_ra)|net/ipv4/ip_local_reserved_ports", re.ASCII
)
"""What we set. The record is not believed about anything else, or it would be a way to write any file."""


class Sysctls:
    """Sets sysctls, named as `net/ipv4/conf/eth0.10/forwarding`, and remembers in a file what it found.

    They are those of the network namespace of the calling thread.
    """

    def __init__(self, record: Path) -> None:
        self._record = record

    def read(self, name: str) -> str | None:
        """The value; None where the kernel has no such setting, or the interface is gone."""
        try:
            return (ROOT / name).read_text().strip()
        except OSError:
            return None

    def set(self, name: str, value: str) -> None:
        """Write a setting that exists. What was found the first time is what `restore` puts back.

        Raises `NotPermitted`.
        """
        remembered = self._remembered()
        found = remembered[name][0] if name in remembered else self.read(name)
        # First the record: killed in between, nothing has changed, and that is what the record then says.
        self._remember(remembered | {name: (found or "", value)})
        self._write(name, value)
        self._remember(remembered | {name: (found or "", self.read(name) or "")})

    def restore(self) -> list[str]:
        """Put everything back, except for what somebody else has changed since; what was put back."""
        restored = []
        for name, (found, ours) in self._remembered().items():
            if self.read(name) == ours != found:
                self._write(name, found)
                restored.append(f"setting {name} ({found or 'empty'} again)")
        self._record.unlink(missing_ok=True)
        return restored

    def _remembered(self) -> dict[str, tuple[str, str]]:
        """Name to what was found and what we wrote. A record that cannot be read counts as none."""
        try:
            document = json.loads(self._record.read_text())
            return {
                name: (str(found), str(ours))
                for name, (found, ours) in document.items()
                if _OURS.fullmatch(name)
            }
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _remember(self, values: dict[str, tuple[str, str]]) -> None:
        try:
            self._record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._record.with_suffix(".new")
            fresh.write_text(json.dumps(values))
            fresh.replace(self._record)
        except OSError as error:
            raise NotPermitted(
                f"cannot write {self._record}: {error.strerror}",
                hint="MARCHPROXY_RUNTIME_DIR names its folder",
            ) from error

    @staticmethod
    def _write(name: str, value: str) -> None:
        try:
            # An empty write would not reach the kernel at all.
            (ROOT / name).write_text(f"{value}\n")
        except OSError as error:
            raise NotPermitted(
                f"cannot write {ROOT / name}: {os.strerror(error.errno or 0)}",
                hint=f"run as root, or: echo {value} | sudo tee {ROOT / name}",
            ) from error
