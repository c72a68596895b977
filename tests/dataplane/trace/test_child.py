"""child: addresses there and back, and nothing of ours. What it sees: tests/namespace/test_tracing.py."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from marchproxy.dataplane.trace import child


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "::1", "255.255.255.255"])
def test_addresses(address: str) -> None:
    assert len(child.pack(address)) == 16
    assert child.unpack(child.pack(address)) == address


def test_it_imports_nothing_that_the_distributions_python_lacks() -> None:
    tree = ast.parse(Path(child.__file__).read_text(), feature_version=(3, 9))
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in named} - sys.stdlib_module_names == {"bcc"}


def test_without_bcc_it_says_so() -> None:
    job = '{"kernel": "/nowhere"}\n'
    ran = subprocess.run(
        [sys.executable, "-I", child.__file__], input=job, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert '"name": "missing"' in ran.stdout
