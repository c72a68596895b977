"""IP forwarding on the interfaces of the data plane.

The kernel answers forwarding look-ups only for interfaces on which forwarding is on. It is switched on per interface,
what was there before is written down, and `detach` puts it back.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from marchproxy.model.errors import NotPermitted

_SWITCHES = ("/proc/sys/net/ipv4/conf/{}/forwarding", "/proc/sys/net/ipv6/conf/{}/forwarding")


class Forwarding:
    """Switches forwarding on, and remembers in `record` (a JSON file) what it found."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def enable(self, interface: str) -> None:
        """Switch IPv4 and IPv6 forwarding on. A family that the kernel lacks is left out."""
        for template in _SWITCHES:
            switch = Path(template.format(interface))
            found = _read(switch)
            if found in (None, "1"):
                continue
            self._remember(switch, str(found))
            _write(switch, "1")

    def is_on(self, interface: str) -> bool:
        """Whether IPv4 forwarding is on: somebody may have switched it off behind us."""
        return _read(Path(_SWITCHES[0].format(interface))) == "1"

    def restore(self) -> list[str]:
        """Put everything back; what was changed."""
        restored = []
        for switch, value in self._remembered().items():
            if _read(Path(switch)) not in (None, value):
                _write(Path(switch), value)
                restored.append(f"{switch} = {value}")
        self._record.unlink(missing_ok=True)
        return restored

    def _remembered(self) -> dict[str, str]:
        try:
            document = json.loads(self._record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return {str(key): str(value) for key, value in document.items() if _is_switch(str(key))}

    def _remember(self, switch: Path, value: str) -> None:
        remembered = self._remembered()
        remembered.setdefault(str(switch), value)
        self._record.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._record.with_suffix(".new")
        fresh.write_text(json.dumps(remembered))
        fresh.replace(self._record)


def enable_all(forwarding: Forwarding, interfaces: Iterable[str]) -> None:
    """Switch forwarding on for several interfaces."""
    for interface in interfaces:
        forwarding.enable(interface)


def _is_switch(path: str) -> bool:
    """Only what `enable` can have written: the record must not become a way to write other files."""
    return any(
        path == template.format(interface)
        for template in _SWITCHES
        for interface in (path.split("/")[-2:-1] or [""])
        if interface and interface not in (".", "..")
    )


def _read(switch: Path) -> str | None:
    try:
        return switch.read_text().strip()
    except OSError:
        return None


def _write(switch: Path, value: str) -> None:
    try:
        switch.write_text(value)
    except OSError as error:
        raise NotPermitted(
            f"cannot write {switch}: {os.strerror(error.errno or 0)}",
            hint=f"run as root, or: echo {value} | sudo tee {switch}",
        ) from error
