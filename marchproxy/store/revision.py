"""Revisions as values, and who makes them."""

import os
import pwd
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Revision:
    """One signed-off step. `number` counts from 1; `time` is UTC, to the second."""

    number: int
    sha256: str
    """Of the snapshot's canonical JSON: its name."""
    author: str
    time: datetime
    message: str


def current_author() -> str:
    """The login name of whoever runs this, also behind sudo. A note for colleagues, no proof of identity."""
    if os.getuid() == 0 and (behind := os.environ.get("SUDO_USER")):
        return behind
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
