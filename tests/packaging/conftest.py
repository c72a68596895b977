"""What is built is built once a run."""

from pathlib import Path

import pytest

from tests.packaging import building


@pytest.fixture(scope="session")
def payload() -> Path:
    return building.payload()


@pytest.fixture(scope="session")
def binary() -> Path:
    return building.binary()


@pytest.fixture(scope="session")
def package() -> Path:
    return building.package()
