"""`marchproxy version`."""

import os

from marchproxy.version import VERSION
from tests.cli.console import Console


def test_document(console: Console) -> None:
    document = console.ok("version", "--output", "json").json
    assert document["version"] == VERSION
    assert document["kernel"] == os.uname().release
    assert document.keys() == {"version", "python", "kernel", "machine"}


def test_lines(console: Console) -> None:
    assert console.ok("version").out.splitlines()[0] == f"version  {VERSION}"
