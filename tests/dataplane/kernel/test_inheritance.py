"""What a daemon of the former ABI has left: flows, names and places go on under the new one."""

import time
from pathlib import Path

import pytest

from marchproxy.bpf import FORMER
from marchproxy.dataplane.kernel.inheritance import _FORMER_FIELDS, _FORMER_FLOW, translated
from marchproxy.dataplane.kernel.layouts import FLOW, FLOW_KEY, U32, read_flow
from marchproxy.dataplane.kernel.loading import Pipeline, load_pipeline
from marchproxy.dataplane.kernel.objects import open_pinned_map
from marchproxy.model.errors import MarchproxyError

VALUES = (
    *(b"s" * 16, b"d" * 16, b"\x01\x02", b"\x03\x04", 5, 6, 7, 8, 9, 10, 11, 12, 13, b"n" * 6, b"o" * 6),
    *(14, 15, 16, 3, 18, 1, 20),
)
FORMERLY = _FORMER_FLOW.pack(*VALUES)
KEY = FLOW_KEY.struct.pack(b"a" * 16, b"b" * 16, b"\0\1", b"\0\2", 6)


def test_every_field_keeps_its_value() -> None:
    assert len(FORMERLY) == FLOW.size
    assert read_flow(translated(FORMERLY))._asdict() == dict(zip(_FORMER_FIELDS, VALUES, strict=True))


@pytest.fixture
def left(bpffs: Path) -> Path:
    """Above the pins of the former ABI: a flow in each table, and the name of its mapping."""
    root = bpffs / "mp"
    former = load_pipeline(root / f"v{FORMER}", flow_table=5000)
    for table in ("flows", "opening"):
        former.maps[table].set(KEY, FORMERLY)
    former.maps["mapping_names"].set(U32.pack(5), b"default/web".ljust(128, b"\0"))
    former.close()
    return root


def loaded(root: Path) -> Pipeline:
    return load_pipeline(root / "v2", flow_table=4096)


@pytest.mark.requires("root", "bpf", "bpffs", "ringbuf")
def test_flows_go_on_and_what_names_them_too(left: Path) -> None:
    pipeline = loaded(left)
    for table in ("flows", "opening"):
        raw = pipeline.maps[table].get(KEY)
        assert raw == translated(FORMERLY)
    assert pipeline.maps["flows"].max_entries == 5000
    named = pipeline.maps["mapping_names"].get(U32.pack(5))
    assert named is not None
    assert named.startswith(b"default/web\0")
    assert [path.name for path in left.iterdir()] == ["v2"]
    pipeline.settle()
    assert not [path.name for path in (left / "v2").iterdir() if path.name.endswith("_v1")]
    pipeline.close()


@pytest.mark.requires("root", "bpf", "bpffs", "ringbuf")
def test_one_that_was_stopped_half_way_goes_on(left: Path) -> None:
    (left / "v1" / "flows").rename(left / "v1" / "flows_v1")
    loaded(left).close()
    pipeline = loaded(left)
    assert pipeline.maps["flows"].get(KEY) == translated(FORMERLY)
    pipeline.close()


@pytest.mark.requires("root", "bpf", "bpffs", "ringbuf")
def test_a_daemon_that_still_runs_keeps_what_it_has(left: Path) -> None:
    running = load_pipeline(left / "v1", flow_table=5000)
    with pytest.raises(MarchproxyError, match="another"):
        loaded(left)
    running.close()
    assert [path.name for path in left.iterdir()] == ["v1"]
    assert (left / "v1" / "flows").exists()


@pytest.mark.requires("root", "bpf", "bpffs", "ringbuf")
def test_what_began_and_ended_before_the_programs_were_exchanged_is_carried_over(left: Path) -> None:
    pipeline = loaded(left)
    later = FLOW_KEY.struct.pack(b"c" * 16, b"b" * 16, b"\0\1", b"\0\2", 6)
    own = FLOW_KEY.struct.pack(b"e" * 16, b"b" * 16, b"\0\1", b"\0\2", 6)
    begun = (*VALUES[:6], time.monotonic_ns(), *VALUES[7:])
    with open_pinned_map(left / "v2" / "flows_v1") as before:
        before.delete(KEY)
        before.set(later, _FORMER_FLOW.pack(*begun))
    pipeline.maps["flows"].set(own, translated(_FORMER_FLOW.pack(*begun)))
    for _ in range(2):
        pipeline.settle()
        assert {key for key, _ in pipeline.maps["flows"].items()} == {later, own}
        assert {key for key, _ in pipeline.maps["opening"].items()} == {KEY}
    assert read_flow(pipeline.maps["flows"].get(later) or b"").started == begun[6]
    pipeline.close()
