"""Starting `workers.py` in processes of their own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(what: str, *given: object) -> subprocess.Popen[str]:
    """One of `workers.py` in a process of its own."""
    command = [sys.executable, "-m", "tests.store.workers", what, *map(str, given)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def run(what: str, *given: object) -> str:
    """One of `workers.py` from beginning to end; what it printed."""
    with start(what, *given) as worker:
        said, _ = worker.communicate()
    assert worker.returncode == 0
    return said
