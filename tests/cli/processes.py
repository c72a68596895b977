"""Commands as processes of their own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cli.console import Console

ROOT = Path(__file__).parents[2]


def python(console: Console, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run statements in an interpreter of their own."""
    return _process(console, [sys.executable, "-c", "\n".join(lines)])


def marchproxy(
    console: Console, *words: str, stdout: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run the command as a process."""
    return _process(console, [sys.executable, "-m", "marchproxy", *words], stdout=stdout)


def _process(
    console: Console, command: Sequence[str], stdout: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | console.variables,
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=60,
    )
