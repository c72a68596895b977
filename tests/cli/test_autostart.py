"""`marchproxy autostart`. That systemd runs what it writes is tested where it boots."""

import os
import pwd
import sys
from pathlib import Path

import pytest

from marchproxy.cli import autostart, unit
from tests.cli.console import Console

type Called = list[tuple[str, ...]]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The program that runs, in a folder that the service sees."""
    monkeypatch.setattr(autostart, "_HIDDEN", ("/root/", "/home/"))
    path = tmp_path / "marchproxy"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    return path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Called:
    """What it has carried out, on a machine with systemd whose /etc and state are elsewhere."""
    calls: Called = []
    (tmp_path / "booted").mkdir()
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(autostart, "ETC", tmp_path / "etc")
    monkeypatch.setattr(autostart, "STATE", tmp_path / "state")
    monkeypatch.setattr(autostart, "PACKAGED", (tmp_path / "packaged",))
    monkeypatch.setattr(autostart, "USER", pwd.getpwuid(os.getuid()).pw_name)
    monkeypatch.setattr(autostart, "_call", lambda *command: calls.append(command))
    monkeypatch.setattr(unit, "_BOOTED", tmp_path / "booted")
    return calls


def text_of(folder: Path) -> str:
    return (folder / "etc" / "systemd" / "system" / "marchproxy.service").read_text()


def test_it_writes_what_the_package_brings_and_enables_it(
    console: Console, program: Path, called: Called, tmp_path: Path
) -> None:
    result = console.ok("autostart")
    written = {str(path.relative_to(tmp_path)) for path in (tmp_path / "etc").rglob("*") if path.is_file()}
    assert written == {
        "etc/marchproxy/marchproxy.env",
        "etc/sysusers.d/marchproxy.conf",
        "etc/systemd/system/marchproxy-tui@.service",
        "etc/systemd/system/marchproxy.service",
        "etc/tmpfiles.d/marchproxy.conf",
    }
    assert f"\nExecStart={program} run\n" in text_of(tmp_path)
    assert f"--create {tmp_path}/etc/tmpfiles.d/marchproxy.conf\n" in text_of(tmp_path)
    assert "/usr/bin/marchproxy" not in text_of(tmp_path)
    assert "MARCHPROXY_CACHE" not in text_of(tmp_path)
    assert [first for first, *_ in called] == [
        "systemd-sysusers",
        "systemd-tmpfiles",
        "systemctl",
        "systemctl",
    ]
    assert called[-1] == ("systemctl", "enable", "--quiet", "marchproxy.service")
    assert "marchproxy init --wizard" in result.err


def test_a_single_file_unpacks_for_the_service_where_root_runs_nothing(
    console: Console, program: Path, called: Called, tmp_path: Path
) -> None:
    console.variables["MARCHPROXY_FILE"] = f"{tmp_path}/./marchproxy"
    (tmp_path / "state" / "marchproxy.db").touch()
    result = console.ok("autostart")
    assert f"\nExecStart={program} run\n" in text_of(tmp_path)
    assert "\nCacheDirectory=marchproxy-service\n" in text_of(tmp_path)
    assert "systemctl restart marchproxy.service" in result.err


def test_settings_that_are_there_stay(
    console: Console, program: Path, called: Called, tmp_path: Path
) -> None:
    (tmp_path / "etc" / "marchproxy").mkdir(parents=True)
    settings = tmp_path / "etc" / "marchproxy" / "marchproxy.env"
    settings.write_text("MARCHPROXY_WORKERS=1\n")
    console.ok("autostart")
    assert settings.read_text() == "MARCHPROXY_WORKERS=1\n"


def test_state_of_an_init_before_is_given_to_the_service_and_links_are_not_followed(
    console: Console, program: Path, called: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        os, "chown", lambda path, *_, follow_symlinks=True: given.append((Path(path).name, follow_symlinks))
    )
    (tmp_path / "state" / "marchproxy.db").touch()
    (tmp_path / "state" / "elsewhere").symlink_to("/etc/passwd")
    console.ok("autostart")
    assert sorted(given) == [("elsewhere", False), ("marchproxy.db", False), ("state", False)]
    given.clear()
    # The service's already: it may have put there what it likes.
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    console.ok("autostart")
    assert given == []


def test_what_cannot_be_written_is_said(
    console: Console, program: Path, called: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "etc").write_text("no folder")
    result = console("autostart")
    assert result.code == 1
    assert "cannot be written: " in result.err
    assert "should not have happened" not in result.err


def test_print_writes_nothing(console: Console, program: Path, called: Called, tmp_path: Path) -> None:
    result = console.ok("autostart", "--print")
    assert f"ExecStart={program} run" in result.out
    assert result.out.count("\n# ") >= 3
    assert not (tmp_path / "etc").exists()
    assert called == []


def test_remove_takes_away_what_it_wrote(
    console: Console, program: Path, called: Called, tmp_path: Path
) -> None:
    console.ok("autostart")
    called.clear()
    console.ok("autostart", "--remove")
    assert called[0] == ("systemctl", "disable", "--quiet", "--now", "marchproxy.service")
    assert [path.name for path in (tmp_path / "etc").rglob("*") if path.is_file()] == ["marchproxy.env"]
    assert "nothing of autostart's" in console.ok("autostart", "--remove").err


def test_the_package_s_service_is_not_hidden(
    console: Console, program: Path, called: Called, tmp_path: Path
) -> None:
    (tmp_path / "packaged").mkdir()
    (tmp_path / "packaged" / "marchproxy.service").touch()
    result = console("autostart")
    assert result.code == 4
    assert "the package has brought the service" in result.err
    assert not (tmp_path / "etc").exists()


def test_without_systemd_it_says_so(console: Console, program: Path, called: Called, tmp_path: Path) -> None:
    (tmp_path / "booted").rmdir()
    result = console("autostart")
    assert "systemd is not the service manager here" in result.err
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nowhere/marchproxy", "No such file or directory"),
        ("/etc", "is no program"),
        ("{folder}/open", "others could write to"),
        ("{folder}/a b", "cannot stand in a unit"),
        ("/home/{folder}", "No such file"),
    ],
)
def test_what_the_service_could_not_run_is_refused(
    console: Console, program: Path, called: Called, tmp_path: Path, path: str, said: str
) -> None:
    for name, mode in (("open", 0o777), ("a b", 0o755)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    console.variables["MARCHPROXY_FILE"] = path.format(folder=tmp_path)
    result = console("autostart")
    assert result.code != 0
    assert said in result.err
    assert not (tmp_path / "etc").exists()


def test_what_the_service_does_not_see_is_refused(
    console: Console, program: Path, called: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(autostart, "_HIDDEN", (f"{tmp_path}/",))
    result = console("autostart")
    assert "out of the service's sight" in result.err
    assert "/usr/local/bin/marchproxy" in result.err
