"""Rules that hold for every file: a size one can read, no traces of one machine, a test for each module."""

import re
from pathlib import Path
from typing import Final

from tests.repo.tree import ROOT, files, texts

LIMIT: Final = 25_000
"""Characters. A longer file holds a second idea that deserves a name of its own."""

LONG: Final = {
    "LICENSE.md": "the licence's text is verbatim",
    "requirements.lock": "written by make lock",
    "requirements-dev.lock": "written by make lock",
    "requirements-bench.lock": "written by make lock",
    "requirements-audit.lock": "written by make lock",
    "requirements-mitmproxy.lock": "written by make lock",
}

MACHINE_PATH: Final = re.compile(r"/(?:work|root|home/[a-z]\w*)/(?:[\w.-]+)")

UNMIRRORED: Final = {
    "marchproxy/__main__.py": "the entry point; tests/cli runs it as an operator would",
}
"""Modules without a test file of their own, and where they are tested instead."""


def test_no_file_is_too_long() -> None:
    # Pictures are drawn, and nobody reads them.
    written = [(str(path), len(text)) for path, text in texts() if path.suffix != ".svg"]
    assert {path: size for path, size in written if size > LIMIT and path not in LONG} == {}


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [f"{path}: {match.group()}" for path, text in texts() for match in MACHINE_PATH.finditer(text)]
    assert found == []


def test_lines_end_as_editorconfig_says() -> None:
    ragged = [
        f"{path}:{number}"
        for path, text in texts()
        for number, line in enumerate(text.split("\n"), start=1)
        if line != line.rstrip() and path != Path("LICENSE.md")
    ]
    assert ragged == []
    assert [str(path) for path, text in texts() if text and not text.endswith("\n")] == []


def test_every_module_has_its_test_file() -> None:
    missing = [
        f"{module}: expected {mirror(module)}"
        for module in modules()
        if not (ROOT / mirror(module)).is_file() and str(module) not in UNMIRRORED
    ]
    assert missing == []


def test_every_exception_is_still_needed() -> None:
    for name in UNMIRRORED:
        assert (ROOT / name).is_file(), f"{name} is gone"
        assert not (ROOT / mirror(Path(name))).exists(), f"{name} has its test file"
    assert [name for name in LONG if len((ROOT / name).read_text()) <= LIMIT] == []


def modules() -> list[Path]:
    """Package docstrings are all that an ``__init__.py`` holds here, so those need no test."""
    return [path for path in sources() if path.name != "__init__.py"]


def sources() -> list[Path]:
    """Not by `Path.match`, for which `**` is one folder (Python 3.12)."""
    return [path for path in files() if path.parts[0] == "marchproxy" and path.suffix == ".py"]


def mirror(module: Path) -> Path:
    return Path("tests", *module.parts[1:-1], f"test_{module.name}")


def test_init_files_hold_no_code() -> None:
    """Code in them would run at every import of the package, and escape the rule above."""
    defining = re.compile(r"^(?:async )?(?:def|class) ", re.MULTILINE)
    inits = [path for path in sources() if path.name == "__init__.py"]
    assert [str(path) for path in inits if defining.search((ROOT / path).read_text())] == []
