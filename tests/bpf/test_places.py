"""Folders of pins: which are ours, which are taken over, and which are others'."""

from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.bpf.places import of_others, versions

OURS, FORMER = f"v{bpf.ABI}", f"v{bpf.FORMER}"


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir()
    (root / "v7").touch()
    return root


def test_of_what_is_there_folders_of_an_abi_count(tmp_path: Path) -> None:
    root = made(tmp_path, OURS, "v10", "theirs", "v1x")
    assert sorted(path.name for path in versions(root)) == sorted([OURS, "v10"])
    assert versions(tmp_path / "nowhere") == []
    assert versions(tmp_path / "v7") == []


@pytest.mark.parametrize(
    ("there", "others"),
    [
        ((), []),
        ((OURS,), []),
        ((FORMER,), []),
        ((OURS, FORMER), [FORMER]),
        ((OURS, "v999"), ["v999"]),
        ((FORMER, "v999"), ["v999"]),
    ],
)
def test_the_one_before_is_taken_over_once(tmp_path: Path, there: tuple[str, ...], others: list[str]) -> None:
    assert [path.name for path in of_others(made(tmp_path, *there))] == others
