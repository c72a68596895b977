"""Facts are values: what a scrape was made of does not change under it."""

from dataclasses import FrozenInstanceError

import pytest

from tests.telemetry.test_metrics import FACTS


def test_facts_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        FACTS.revision = 8  # type: ignore[misc]
