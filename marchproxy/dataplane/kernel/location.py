"""Where the kernel keeps our maps and links."""

import os
from pathlib import Path

from marchproxy import bpf

DEFAULT_BPFFS = Path("/sys/fs/bpf/marchproxy")
DEFAULT_RUNTIME = Path("/run/marchproxy")


def pin_root() -> Path:
    """`MARCHPROXY_BPFFS`, or the usual place: everything we pin is below."""
    return Path(os.environ.get("MARCHPROXY_BPFFS", DEFAULT_BPFFS))


def pin_directory() -> Path:
    """Maps of this ABI; links are in `links` below."""
    return pin_root() / f"v{bpf.ABI}"


def forwarding_record() -> Path:
    """What forwarding was before us."""
    return Path(os.environ.get("MARCHPROXY_RUNTIME_DIR", DEFAULT_RUNTIME)) / "forwarding.json"
