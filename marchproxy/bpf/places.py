"""Where programs and maps are pinned: a folder for each ABI."""

import re
from collections.abc import Sequence
from pathlib import Path

from marchproxy import bpf

PINS = Path("/sys/fs/bpf/marchproxy")
"""Everything is below; `MARCHPROXY_BPFFS` names another place."""
_FOLDER = re.compile(r"v[0-9]+")


def versions(root: Path) -> Sequence[Path]:
    """The folders that there are, of whatever ABI. Raises `PermissionError`."""
    try:
        found = sorted(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in found if path.is_dir() and _FOLDER.fullmatch(path.name)]


def of_others(root: Path) -> Sequence[Path]:
    """Those that this version can neither use nor take over. Raises `PermissionError`."""
    found = {path.name: path for path in versions(root)}
    if found.pop(f"v{bpf.ABI}", None) is None:
        found.pop(f"v{bpf.FORMER}", None)
    return list(found.values())
