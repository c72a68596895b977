"""Files of JSON lines: whole, rotated by us or by others, and not in anybody's way."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marchproxy.telemetry.logs.files import JsonFile
from marchproxy.telemetry.logs.jsonlines import line
from marchproxy.telemetry.logs.sink import Unreachable
from tests.dataplane.loops import looped
from tests.telemetry.logs.made import asked, ended


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(each) for each in path.read_text().splitlines()]


@looped
async def test_each_request_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access-default.jsonl"
    file = JsonFile(path)
    assert await file.send([asked(), ended(), asked(path='/quote"\n\u2028ü')]) == 0
    await file.close()
    assert [each["path"] for each in lines(path)] == ["/cart", '/quote"\n\u2028ü']
    assert path.stat().st_mode & 0o777 == 0o640
    first = lines(path)[0]
    assert first["time"] == "2027-01-15T08:00:00.250Z"
    assert (first["status"], first["took_ms"], first["tls"], first["scheme"]) == (
        200,
        12.5,
        "TLSv1.3",
        "https",
    )


@pytest.mark.parametrize("away", [lambda path: path.rename(f"{path}.old"), Path.unlink])
@looped
async def test_who_moves_it_away_gets_a_new_one(tmp_path: Path, away: Callable[[Path], object]) -> None:
    path = tmp_path / "access.jsonl"
    file = JsonFile(path)
    await file.send([asked(path="/1")])
    away(path)
    await file.send([asked(path="/2")])
    await file.close()
    assert [each["path"] for each in lines(path)] == ["/2"]


@looped
async def test_it_is_rotated_by_its_size_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    size = len(line(asked(path="/0")).encode())
    for _ in range(2):
        # Also what an earlier daemon has left is looked at.
        file = JsonFile(path, largest=2 * size, kept=2)
        for number in range(4):
            await file.send([asked(path=f"/{number}")])
        await file.close()
    assert [each["path"] for each in lines(path)] == ["/2", "/3"]
    assert [each["path"] for each in lines(Path(f"{path}.1"))] == ["/0", "/1"]
    assert [each["path"] for each in lines(Path(f"{path}.2"))] == ["/2", "/3"]
    assert len(list(tmp_path.iterdir())) == 3


@looped
async def test_a_full_disk_leaves_no_half_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "access.jsonl", os.write
    file = JsonFile(path)
    await file.send([asked(path="/1")])
    room = [40]

    def full(descriptor: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0], taken = 0, room[0]
        return write(descriptor, data[:taken])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(Unreachable, match="No space left"):
            await file.send([asked(path="/2")])
    assert [each["path"] for each in lines(path)] == ["/1"]
    await file.send([asked(path="/2")])
    await file.close()
    assert [each["path"] for each in lines(path)] == ["/1", "/2"]


@looped
async def test_no_link_leads_elsewhere(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("x")
    path = tmp_path / "access.jsonl"
    path.symlink_to(target)
    file = JsonFile(path)
    with pytest.raises(Unreachable, match=r"access\.jsonl"):
        await file.send([asked()])
    await file.close()
    assert target.read_text() == "x"
