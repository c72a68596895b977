"""bundle: everything that helps, and no secret."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from marchproxy.dataplane.doctor import bundle
from marchproxy.dataplane.doctor.bundle import write_bundle
from marchproxy.model.errors import Conflict, MarchproxyError
from tests.dataplane.doctor.patient import Patient

TOKEN = "Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmFyYmF6Zm9vYmE="
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ3ZWIifQ.c2lnbmF0dXJl"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n-----END PRIVATE KEY-----"


def test_it_holds_what_was_given_and_what_the_machine_says(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "COMMANDS", {"said.txt": ("echo", "hello"), "none.txt": ("no-such-program",)})
    path = tmp_path / "support.tar.gz"
    held = write_bundle(path, {"doctor.json": json.dumps([{"name": "clock"}])}, patient.case)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        texts = {}
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            folder, _, name = entry.name.partition("/")
            assert folder.startswith("marchproxy-support-")
            texts[name] = file.read().decode()
    assert sorted(texts) == held
    assert json.loads(texts["doctor.json"]) == [{"name": "clock"}]
    assert texts["said.txt"] == "hello\n"
    assert texts["none.txt"] == "no-such-program is not installed\n"
    assert "65536" in texts["proc/77-limits.txt"]


def test_no_file_is_written_over(patient: Patient, tmp_path: Path) -> None:
    path = tmp_path / "support.tar.gz"
    path.write_text("precious")
    with pytest.raises(Conflict):
        write_bundle(path, {}, patient.case)
    assert path.read_text() == "precious"
    with pytest.raises(MarchproxyError):
        write_bundle(tmp_path / "no" / "folder", {}, patient.case)


def test_a_full_disk_leaves_nothing(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "COMMANDS", {})
    monkeypatch.setattr(bundle, "_open", lambda _: Full())
    path = patient.folder / "support.tar.gz"
    path.touch()
    with pytest.raises(MarchproxyError, match="No space left"):
        write_bundle(path, {}, patient.case)
    assert not path.exists()
