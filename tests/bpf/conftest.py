"""One bed for each module of packet tests; each test finds it as new."""

from collections.abc import Iterator

import pytest

from rig import Rig
from tests.bpf.bed import Bed, Tier, inside


@pytest.fixture(scope="module")
def shared_bed() -> Iterator[Bed]:
    """Loading takes a fifth of a second, most of it the verifier's.

    For no longer than a module: while it lasts the whole run is in the bed's namespace, other tests included.
    """
    with Rig() as rig, inside(rig.middle):
        yield Bed(rig)


@pytest.fixture
def bed(shared_bed: Bed) -> Bed:
    """Both programs, without policy or flows."""
    shared_bed.reset()
    return shared_bed


@pytest.fixture(params=["tc", "xdp"])
def tier(request: pytest.FixtureRequest) -> Tier:
    """Every test that asks for it runs on both tiers."""
    return request.param  # type: ignore[no-any-return]
