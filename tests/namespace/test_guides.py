"""docs/guides: every command in them is executed, in the order in which a reader would, between real hosts.

The first guide is what the others begin with.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import Appliance, Rig
from tests.namespace.pages import FENCES, FIRST, GUIDES, Shell, blocks, fences, hosts, setting

pytestmark = pytest.mark.requires(
    "root", "netns", "veth", "bpf", "bpffs", commands=["curl", "bash", "python3"]
)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with hosts() as built:
        yield built


@pytest.fixture
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name="guide") as built:
        yield built


@pytest.mark.parametrize("guide", sorted(GUIDES.glob("*.md")), ids=lambda path: path.name)
def test_every_command_does_what_the_guide_says(
    rig: Rig, appliance: Appliance, tmp_path: Path, guide: Path
) -> None:
    shell = Shell(rig, appliance, tmp_path)
    shell.follow(blocks(guide) if guide == FIRST else [*setting(), *blocks(guide)])


def test_no_block_is_left_out() -> None:
    for path in GUIDES.glob("*.md"):
        assert len(fences(path)) == len(blocks(path)), path.name
        assert set(fences(path)) <= FENCES, path.name
