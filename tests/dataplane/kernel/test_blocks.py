"""blocks: images are exchanged as a whole, only where something changed, and live on without the daemon."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import blocks as module
from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.blocks import BlockTables
from marchproxy.dataplane.kernel.errors import KernelError
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.policy.blocks import NOTHING_BLOCKED, Blocks
from tests.policy.blocking import blocks

pytestmark = pytest.mark.requires("root", "bpf")

SINGLE, LISTS = layouts.BLOCK_SINGLE, layouts.BLOCK_LISTS


@pytest.fixture(scope="module")
def shared_maps() -> Iterator[dict[str, Map]]:
    with BpfObject.load(bpf.OBJECTS / "tc.bpf.o", max_entries={"flows": 16, "opening": 16}) as loaded:
        yield loaded.maps


@pytest.fixture
def maps(shared_maps: dict[str, Map]) -> dict[str, Map]:
    for layer in (SINGLE, LISTS):
        shared_maps["blocks"].delete(layouts.U32.pack(layer))
    Settings(shared_maps["settings"]).change(block_layers=0)
    return shared_maps


def tables(maps: dict[str, Map]) -> BlockTables:
    """As a daemon that starts makes them."""
    return BlockTables(maps, Settings(maps["settings"]), len)


def switch(made: BlockTables, wanted: Blocks) -> None:
    made.prepare(wanted)
    made.switch()


def images(maps: dict[str, Map]) -> list[int]:
    """Identities of the images by layer, 0: none."""
    found = (maps["blocks"].get(layouts.U32.pack(layer)) for layer in (SINGLE, LISTS))
    return [layouts.U32.unpack(raw)[0] if raw else 0 for raw in found]


def epoch(maps: dict[str, Map]) -> int:
    """That of the blocks."""
    raw = maps["settings"].get(layouts.U32.pack(0)) or b""
    values = dict(zip(layouts.SETTINGS.fields, layouts.SETTINGS.struct.unpack(raw), strict=True))
    return int(values["block_epoch"])


def test_every_change_begins_a_new_epoch(maps: dict[str, Map]) -> None:
    made, seen = tables(maps), [epoch(maps)]
    for wanted in (blocks("10.0.0.1"), blocks("10.0.0.2"), NOTHING_BLOCKED):
        switch(made, wanted)
        seen.append(epoch(maps))
    assert seen == [seen[0] + number for number in range(4)]
    switch(made, NOTHING_BLOCKED)
    assert epoch(maps) == seen[-1]


def test_half_a_change_begins_a_new_epoch_too(maps: dict[str, Map], monkeypatch: pytest.MonkeyPatch) -> None:
    made = tables(maps)
    made.prepare(blocks("10.0.0.1", list=["10.1.0.0/16"]))
    before, put = epoch(maps), Map.set

    def refuse_lists(held: Map, key: bytes, value: bytes, *flags: int) -> None:
        if held is maps["blocks"] and key == layouts.U32.pack(LISTS):
            raise KernelError("no memory")
        put(held, key, value, *flags)

    monkeypatch.setattr(Map, "set", refuse_lists)
    with pytest.raises(KernelError):
        made.switch()
    assert images(maps)[SINGLE]
    assert epoch(maps) == before + 1


def test_layers_come_and_go_each_by_itself(maps: dict[str, Map]) -> None:
    made = tables(maps)
    switch(made, blocks("10.0.0.1"))
    assert (bool(images(maps)[SINGLE]), images(maps)[LISTS]) == (True, 0)
    assert Settings(maps["settings"]).block_layers == 1 << SINGLE
    single = images(maps)[SINGLE]
    switch(made, blocks("10.0.0.1", list=["10.1.0.0/16"]))
    assert images(maps)[SINGLE] == single
    assert images(maps)[LISTS]
    assert Settings(maps["settings"]).block_layers == 1 << SINGLE | 1 << LISTS
    assert all(size > 0 for size in made.sizes)
    switch(made, NOTHING_BLOCKED)
    assert (images(maps), made.sizes) == ([0, 0], [0, 0])
    assert Settings(maps["settings"]).block_layers == 0


def test_nothing_holds_before_the_switch(maps: dict[str, Map]) -> None:
    made = tables(maps)
    switch(made, blocks("10.0.0.1"))
    before = images(maps)
    made.prepare(blocks("10.0.0.2"))
    assert images(maps) == before
    made.forget()
    switch(made, blocks("10.0.0.1"))
    assert images(maps) == before


def test_next_daemon_replaces_what_it_finds(maps: dict[str, Map]) -> None:
    switch(tables(maps), blocks("10.0.0.1", list=["10.1.0.0/16"]))
    switch(tables(maps), blocks(list=["10.2.0.0/16"]))
    assert Settings(maps["settings"]).block_layers == 1 << LISTS
    assert images(maps)[SINGLE] == 0


def test_no_descriptor_is_left_open(maps: dict[str, Map]) -> None:
    made = tables(maps)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        made.prepare(blocks(f"10.0.0.{number}", list=[f"10.1.{number}.0/24"]))
        made.prepare(blocks(f"10.0.1.{number}", list=[f"10.2.{number}.0/24"]))
        made.switch()
    assert len(os.listdir("/proc/self/fd")) == before


def test_image_that_cannot_be_made_leaves_what_holds(
    maps: dict[str, Map], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tables(maps)
    switch(made, blocks("10.0.0.1"))
    before = images(maps)

    def no_memory(_: bytes) -> int:
        raise KernelError("no memory", errno=12)

    monkeypatch.setattr(module, "create_image", no_memory)
    with pytest.raises(KernelError):
        made.prepare(blocks("10.0.0.2"))
    assert images(maps) == before


def test_numbers_that_do_not_fit_are_refused(maps: dict[str, Map]) -> None:
    made = BlockTables(maps, Settings(maps["settings"]), lambda _: layouts.BLOCK_OWNER_MAX + 1)
    with pytest.raises(PlanTooLarge, match="named"):
        made.prepare(blocks("10.0.0.1"))


def test_pinned_map_keeps_its_images(tmp_path: Path) -> None:
    with BpfObject.load(bpf.OBJECTS / "tc.bpf.o", max_entries={"flows": 16, "opening": 16}) as loaded:
        switch(tables(loaded.maps), blocks("10.0.0.1"))
        identity = images(loaded.maps)[SINGLE]
        assert identity
        again = tables(loaded.maps)
        assert images(loaded.maps)[SINGLE] == identity
        switch(again, NOTHING_BLOCKED)
        assert images(loaded.maps) == [0, 0]
