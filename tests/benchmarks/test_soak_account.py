"""What the kernel holds for a run, as cgroups of both versions say it."""

import os
from pathlib import Path

import pytest

from benchmarks.soak.account import Account, account, controller, held

FIRST = "30 24 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
OTHER = "31 24 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu"


def unified(place: Path, handed_down: str) -> str:
    (place / "cgroup.subtree_control").write_text(handed_down)
    return f"29 24 0:25 / {place} rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def test_memory_is_accounted_for_where_its_controller_is(tmp_path: Path) -> None:
    assert controller("\n".join((OTHER, FIRST))) == Path("/sys/fs/cgroup/memory")
    assert controller("\n".join((OTHER, unified(tmp_path, "cpu memory pids\n")))) == tmp_path
    # Both are mounted, and the first version has the controller.
    assert controller("\n".join((unified(tmp_path, ""), FIRST))) == Path("/sys/fs/cgroup/memory")
    assert controller("\n".join((OTHER, unified(tmp_path, "cpu pids\n")))) is None
    assert controller(OTHER) is None


def test_what_could_be_reclaimed_is_not_held() -> None:
    assert held({"anon": "9", "kernel": "700", "slab_reclaimable": "300", "slab_unreclaimable": "100"}) == 400
    parts = {"kernel_stack": "1", "pagetables": "20", "percpu": "300", "slab_unreclaimable": "4000"}
    assert held(parts) == 4321


def test_the_second_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text("anon 9\nkernel 3000000\nslab_reclaimable 1000000\n")
    assert Account(tmp_path).kernel() == 2.0


def test_without_a_controller_it_is_the_machine_s() -> None:
    assert Account(None).kernel() > 1


@pytest.mark.requires("root")
def test_an_account_has_what_is_allocated_meanwhile_and_leaves_nothing() -> None:
    with account("test") as found:
        before = found.kernel()
        pipes = [os.pipe() for _ in range(200)]
        try:
            for _, end in pipes:
                os.write(end, bytes(65536))
            # Pages of pipes are the kernel's (alloc_pages of fs/pipe.c, GFP_KERNEL_ACCOUNT).
            assert found.kernel() >= before + 10 or found.group is None
        finally:
            for ends in pipes:
                os.close(ends[0])
                os.close(ends[1])
    assert found.group is None or not found.group.exists()
