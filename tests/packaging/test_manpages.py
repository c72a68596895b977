"""The manual pages: one for each command, from its own words, and nothing that roff stumbles over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marchproxy.cli.main import COMMANDS
from marchproxy.version import VERSION
from scripts.manpages import escape
from tests.repo.tree import ROOT


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([sys.executable, "scripts/manpages.py", folder], cwd=ROOT, env=environment, check=True)
    return folder


def test_every_command_has_a_page(pages: Path) -> None:
    names = {"marchproxy", *(f"marchproxy-{name}" for name in COMMANDS)}
    assert {page.stem for page in pages.iterdir()} == names


def test_a_page_says_what_help_says(pages: Path) -> None:
    page = (pages / "marchproxy-mapping.1").read_text()
    assert page.startswith(f'.TH MARCHPROXY-MAPPING 1 2023-11-14 "marchproxy {VERSION}"')
    assert "marchproxy\\-mapping \\- Manage mappings: who may talk to whom" in page.replace(
        "marchproxy-", "marchproxy\\-"
    )
    assert '.SH "MARCHPROXY MAPPING ADD"' in page
    assert "\\-\\-listen" in page
    assert "--" not in page.partition("\n")[2]


def test_the_first_page_leads_to_the_others(pages: Path) -> None:
    page = (pages / "marchproxy.1").read_text()
    assert "marchproxy\\-service(1)" in page
    assert ".SH EXIT STATUS\n.TP\n\\fB0\\fR\ndone" in page


@pytest.mark.requires(commands=["groff"])
def test_roff_has_nothing_against_them(pages: Path) -> None:
    for page in sorted(pages.iterdir()):
        command = ["groff", "-k", "-man", "-Tutf8", "-ww", "-z", str(page)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == "", page.name


def test_text_stays_text() -> None:
    assert escape(".hidden\\n-x") == "\\&.hidden\\en\\-x"
