"""Files that are imported, and what is said about it."""

import random
from datetime import UTC, datetime

import pytest

from benchmarks.block import mixed
from benchmarks.blockimport import FORMS, Import
from marchproxy.model.blockfile import read_blocks

PREFIXES = [line.strip() for line in mixed(500, random.Random(1))]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = read_blocks("".join(FORMS[form](PREFIXES)).splitlines(), now)
    assert (found.bad, found.read) == ((), 500)
    said = {text for text, _ in found.contents.texts()}
    same = {text for text, _ in read_blocks(PREFIXES, now).contents.texts()}
    # What expires takes nothing out that is inside it.
    assert said >= same if form == "CSV" else said == same


@pytest.mark.parametrize(
    ("took", "met"),
    [
        (Import("CSV", 4.94, 120, 200), True),
        (Import("CSV", 5.1, 120, 200), False),
        (Import("CSV", 1, 301, 200), False),
        (Import("CSV", 1, 120, 301), False),
    ],
)
def test_an_import_knows_its_goals(took: Import, met: bool) -> None:
    assert took.met is met


def test_an_import_in_words() -> None:
    assert Import("CSV", 4.94, 120.4, 200).text() == (
        "CSV: 4.9 s, at most 120 MB in the command and 200 MB in the daemon"
    )
