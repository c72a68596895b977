"""The code of what `dataclasses` would compile at each start is in the payload."""

import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.requires(commands=["patchelf", "strip"]), pytest.mark.timeout(900)]

MISSED = """
import dataclasses
asked, found = [], dataclasses._ready_made
dataclasses._ready_made = lambda text: asked.append(found(text)) or asked[-1]
import {modules}
assert len(asked) > {least}, len(asked)
print(sum(isinstance(each, str) for each in asked))
"""
OWN = """
from dataclasses import dataclass
@dataclass(frozen=True, order=True)
class Unheard:
    of: int = 7
print(Unheard(), Unheard(1) < Unheard())
"""


def say(payload: Path, program: str) -> str:
    [python] = payload.glob("bin/python3.*")
    return subprocess.check_output([python, "-I", "-c", program], text=True, env={}, cwd="/")


@pytest.mark.parametrize(
    ("modules", "least"),
    [
        ("marchproxy.dataplane.supervisor, marchproxy.dataplane.kernel.tier", 200),
        ("marchproxy.dataplane.workers.worker", 100),
        ("marchproxy.cli.main, marchproxy.cli.service", 10),
    ],
)
def test_nothing_is_compiled_when_it_starts(payload: Path, modules: str, least: int) -> None:
    assert say(payload, MISSED.format(modules=modules, least=least)) == "0\n"


def test_classes_that_nobody_heard_of_are_compiled_as_ever(payload: Path) -> None:
    assert say(payload, OWN) == "Unheard(of=7) True\n"


def test_without_the_file_it_is_only_slower(payload: Path, tmp_path: Path) -> None:
    [module] = payload.glob("lib/python3.*/dataclasses.py")
    (tmp_path / "dataclasses.py").write_text(module.read_text())
    first = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    program = f"{first}\n{OWN}\nprint(sys.modules['dataclasses'].__file__)"
    assert say(payload, program) == f"Unheard(of=7) True\n{tmp_path}/dataclasses.py\n"
