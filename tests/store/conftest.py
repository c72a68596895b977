from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.store.store import Store


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A folder for a store, which does not exist yet."""
    return tmp_path / "state"


@pytest.fixture
def store(state_dir: Path) -> Iterator[Store]:
    """A new store. It gives up after a moment instead of five seconds where another process is in the way."""
    with Store.open(state_dir, create=True, timeout=0.05) as opened:
        yield opened
