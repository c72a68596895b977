"""Where the kernel keeps our maps and links, and where we keep what we changed in it."""

import os
from pathlib import Path

from marchproxy import bpf
from marchproxy.bpf.places import PINS

DEFAULT_RUNTIME = Path("/run/marchproxy")
LOOKUP = "lookup"


def pin_root() -> Path:
    """`MARCHPROXY_BPFFS`, or the usual place: everything we pin is below."""
    return Path(os.environ.get("MARCHPROXY_BPFFS") or PINS)


def pin_directory() -> Path:
    """Maps of this ABI."""
    return pin_root() / f"v{bpf.ABI}"


def link_directory() -> Path:
    """Programs on interfaces."""
    return pin_directory() / "links"


def lookup_directory() -> Path:
    """What gives one listening socket the connections of many ports."""
    return pin_directory() / LOOKUP


def sysctl_record() -> Path:
    """What kernel settings were before us (`MARCHPROXY_RUNTIME_DIR`)."""
    return Path(os.environ.get("MARCHPROXY_RUNTIME_DIR") or DEFAULT_RUNTIME) / "sysctls.json"
