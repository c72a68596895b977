"""sysctls: what is changed is remembered, and comes back unless somebody else has changed it since."""

import json
import os
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel import sysctls
from marchproxy.dataplane.kernel.sysctls import Sysctls
from marchproxy.model.errors import NotPermitted

FORWARDING = "net/ipv4/conf/eth0.10/forwarding"
RESERVED = "net/ipv4/ip_local_reserved_ports"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc/sys of the test's own."""
    made = tmp_path / "sys"
    for name, value in {FORWARDING: "0", RESERVED: ""}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(f"{value}\n")
    monkeypatch.setattr(sysctls, "ROOT", made)
    return made


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "run" / "sysctls.json"


@pytest.fixture
def settings(root: Path, record: Path) -> Sysctls:
    return Sysctls(record)


def test_a_setting_and_back(settings: Sysctls, record: Path) -> None:
    settings.set(FORWARDING, "1")
    assert settings.read(FORWARDING) == "1"
    assert settings.restore() == [f"setting {FORWARDING} (0 again)"]
    assert settings.read(FORWARDING) == "0"
    assert not record.exists()
    assert settings.restore() == []


def test_a_setting_that_was_empty(settings: Sysctls) -> None:
    settings.set(RESERVED, "10-20")
    assert settings.restore() == [f"setting {RESERVED} (empty again)"]
    assert settings.read(RESERVED) == ""


def test_a_successor_puts_back_what_the_first_found(settings: Sysctls, root: Path, record: Path) -> None:
    settings.set(FORWARDING, "1")
    (root / FORWARDING).write_text("0\n")
    Sysctls(record).set(FORWARDING, "1")
    Sysctls(record).restore()
    assert settings.read(FORWARDING) == "0"


def test_a_setting_that_is_changed_twice_goes_back_to_what_it_was_first(settings: Sysctls) -> None:
    settings.set(RESERVED, "10-20")
    settings.set(RESERVED, "10-20,30-40")
    assert settings.restore() == [f"setting {RESERVED} (empty again)"]


def test_what_somebody_else_has_changed_since_is_theirs(settings: Sysctls, root: Path) -> None:
    settings.set(RESERVED, "10-20")
    (root / RESERVED).write_text("10-20,8080\n")
    assert settings.restore() == []
    assert settings.read(RESERVED) == "10-20,8080"


def test_an_interface_that_is_gone_is_passed_over(settings: Sysctls, root: Path) -> None:
    settings.set(FORWARDING, "1")
    (root / FORWARDING).unlink()
    assert settings.read(FORWARDING) is None
    assert settings.restore() == []


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"a": 1}', '{"a": ["0"]}', "null"])
def test_a_broken_record_counts_as_none(settings: Sysctls, record: Path, text: str) -> None:
    record.parent.mkdir()
    record.write_text(text)
    assert settings.restore() == []
    settings.set(FORWARDING, "1")
    assert len(settings.restore()) == 1


@pytest.mark.parametrize(
    "name", ["kernel/core_pattern", "../../etc/passwd", "net/ipv4/conf/a/b/forwarding", "net/ipv4/ip_forward"]
)
def test_a_forged_record_writes_nothing_else(settings: Sysctls, root: Path, record: Path, name: str) -> None:
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("ours\n")
    record.parent.mkdir()
    record.write_text(json.dumps({name: ["theirs", "ours"]}))
    assert settings.restore() == []
    assert target.read_text() == "ours\n"


def test_killed_before_writing_nothing_is_put_back(
    settings: Sysctls, root: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sysctls, "_write", die)
    with pytest.raises(KeyboardInterrupt):
        settings.set(FORWARDING, "1")
    monkeypatch.undo()
    monkeypatch.setattr(sysctls, "ROOT", root)
    assert settings.restore() == []


def test_what_may_not_be_written_says_how(settings: Sysctls, root: Path) -> None:
    (root / FORWARDING).unlink()
    (root / FORWARDING).mkdir()
    with pytest.raises(NotPermitted, match=r"cannot write .*forwarding: Is a directory") as refused:
        settings.set(FORWARDING, "1")
    assert "sudo tee" in refused.value.hint


def test_a_record_that_cannot_be_written_is_an_error_and_nothing_is_changed(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    settings = Sysctls(tmp_path / "file" / "sysctls.json")
    with pytest.raises(NotPermitted, match=r"cannot write .*sysctls\.json"):
        settings.set(FORWARDING, "1")
    assert settings.read(FORWARDING) == "0"


@pytest.mark.requires("root", "netns")
def test_settings_are_those_of_the_network_namespace(namespace: None, record: Path) -> None:
    settings = Sysctls(record)
    settings.set("net/ipv4/conf/lo/forwarding", "1")
    settings.set(RESERVED, "80,90-100")
    assert Path("/proc/sys/net/ipv4/conf/lo/forwarding").read_text() == "1\n"
    assert settings.read(RESERVED) == "80,90-100"
    assert len(settings.restore()) == 2
    assert (settings.read("net/ipv4/conf/lo/forwarding"), settings.read(RESERVED)) == ("0", "")
    assert os.access(record, os.F_OK) is False
