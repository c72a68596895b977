"""Taking everything out of the kernel: `marchproxy detach`."""

import shutil
from pathlib import Path

from marchproxy.dataplane.kernel.forwarding import Forwarding
from marchproxy.dataplane.kernel.interfaces import detach_pin
from marchproxy.dataplane.kernel.location import forwarding_record, pin_root
from marchproxy.model.errors import NotPermitted


def detach_all() -> list[str]:
    """Detach every program, unpin every map (and with them all flows), restore forwarding. What was removed, in words.

    Needs no daemon and no compiled object; running it twice is harmless. Raises `NotPermitted`.
    """
    root = pin_root()
    try:
        versions = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        removed = [each for version in versions for each in _remove(version)]
        if root.is_dir():
            root.rmdir()
    except PermissionError as error:
        raise NotPermitted(f"cannot remove {error.filename}", hint="run: sudo marchproxy detach") from error
    return removed + Forwarding(forwarding_record()).restore()


def _remove(version: Path) -> list[str]:
    removed = []
    links = version / "links"
    for pin in sorted(links.iterdir()) if links.is_dir() else []:
        detach_pin(pin)
        program, _, interface = pin.name.partition("-")
        removed.append(f"{program} program on {interface.replace('%', '.')}")
    pins = sum(1 for path in version.iterdir() if not path.is_dir())
    shutil.rmtree(version)
    return [*removed, f"{pins} maps ({version.name}), with their flows"] if pins else removed
