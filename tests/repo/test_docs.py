"""What the documents point at exists."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.repo.tree import ROOT, files, texts

LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


@pytest.mark.parametrize("page", [str(path) for path in files() if path.suffix == ".md"])
def test_links_lead_somewhere(page: str) -> None:
    links = LINK.findall((ROOT / page).read_text())
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_index_lists_every_page() -> None:
    pages = {path.name for path in files() if path.parent == Path("docs") and path.name != "index.md"}
    assert set(LINK.findall((ROOT / "docs" / "index.md").read_text())) >= pages


def test_documents_name_only_targets_that_exist() -> None:
    named = {target for path, text in texts(".md") for target in re.findall(r"`make ([a-z-]+)", text)}
    assert named
    assert named <= targets()


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.check_output(["make", "--no-print-directory"], cwd=ROOT, text=True)
    assert {line.split()[1] for line in listed.splitlines()} == targets()


def targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    return set(phony.group(1).split())
