"""scripts/setup.sh, function by function, on invented machines whose commands only note their calls."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.repo.tree import ROOT

TOOLS = ["bash", "cat", "chmod", "dirname", "grep", "make", "rm", "sed", "sha256sum", "sh", "sort"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A checkout and a machine of which only `TOOLS` are real."""

    folder: Path

    def add(self, command: str, body: str = "") -> Path:
        """A command on PATH, or elsewhere if `command` is a path; each call is noted before `body` runs."""
        path = self.folder / ("bin" if "/" not in command else "") / command
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >>{self.folder}/calls\n{body}\n')
        path.chmod(0o755)
        return path

    def calls(self) -> list[str]:
        noted = self.folder / "calls"
        return noted.read_text().splitlines() if noted.exists() else []

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Source the script, then run `code`; apt's policy file is the machine's own."""
        script = f"source scripts/setup.sh; PATH={self.folder}/bin; POLICY={self.folder}/policy; {code}"
        environment = {"PATH": f"{self.folder}/bin", "HOME": str(self.folder / "home")}
        command = ["bash", "-c", script]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for name in (".python-version", ".version", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    return Machine(tmp_path)


@pytest.fixture
def user(machine: Machine) -> Machine:
    machine.add("id", "echo 1000")
    machine.add("apt-get")
    return machine


@pytest.fixture
def root(machine: Machine) -> Machine:
    machine.add("id", "echo 0")
    machine.add("apt-get", f"[ ! -e {machine.folder}/policy ] || echo held >>{machine.folder}/calls")
    machine.add("systemctl")
    return machine


class TestPackages:
    def test_what_is_there_is_left_alone(self, root: Machine) -> None:
        assert root.run(f"require_packages make:make '{root.folder}/script*:scripts'").returncode == 0
        assert root.calls() == []

    def test_a_user_is_told_the_exact_command(self, user: Machine) -> None:
        result = user.run("require_packages clang:clang make:make /nowhere/bpf.h:libbpf-dev")
        assert result.returncode == 1
        assert "sudo apt-get install --no-install-recommends clang libbpf-dev" in result.stderr
        assert user.calls() == ["id -u"]

    def test_a_machine_without_apt_is_told_the_names(self, machine: Machine) -> None:
        result = machine.run("require_packages clang:clang")
        assert result.returncode == 1
        assert "missing: clang" in result.stderr
        assert "no apt-get" in result.stderr

    def test_root_installs_what_is_missing(self, root: Machine) -> None:
        result = root.run("require_packages clang:clang make:make")
        assert result.returncode == 0
        assert "==> Installing system packages: clang" in result.stdout
        [install] = [call for call in root.calls() if "install" in call]
        assert install.endswith(" clang")

    def test_services_are_held_while_installing_and_disabled_after(self, root: Machine) -> None:
        assert root.run("install_packages curl nginx").returncode == 0
        calls = root.calls()
        assert calls[-3:] == ["held", "systemctl disable --quiet nginx", "systemctl stop --quiet nginx"]
        assert not (root.folder / "policy").exists()

    def test_a_service_is_found_whose_package_has_another_name(self, root: Machine) -> None:
        assert root.run("install_packages openssh-server").returncode == 0
        assert root.calls()[-2:] == ["systemctl disable --quiet ssh", "systemctl stop --quiet ssh"]

    def test_services_that_were_there_before_stay(self, root: Machine) -> None:
        root.run("install_packages curl")
        assert [call for call in root.calls() if call.startswith("systemctl")] == []

    def test_the_hold_ends_when_the_installation_fails(self, root: Machine) -> None:
        root.add("apt-get", '[ "$1" = update ]')
        result = root.run("install_packages nginx")
        assert result.returncode == 1
        assert "apt-get could not install: nginx" in result.stderr
        assert not (root.folder / "policy").exists()

    def test_a_policy_of_the_machine_is_not_touched(self, root: Machine) -> None:
        (root.folder / "policy").write_text("theirs")
        root.run("install_packages curl")
        assert (root.folder / "policy").read_text() == "theirs"

    def test_package_lists_are_updated_once(self, root: Machine) -> None:
        root.run("install_packages curl; install_packages make")
        assert sum(call.startswith("apt-get update") for call in root.calls()) == 1

    def test_old_package_lists_may_do(self, root: Machine) -> None:
        root.add("apt-get", '[ "$1" != update ]')
        result = root.run("install_packages curl")
        assert result.returncode == 0
        assert "going on with the lists that are here" in result.stderr


class TestPython:
    def python(self, machine: Machine, name: str, *, without: str = "") -> Path:
        """A working interpreter by another name; an import of `without` fails."""
        check = f'case "$2" in *"import {without}"*) exit 1;; esac\n' if without else ""
        return machine.add(name, f'{check}exec {sys.executable} "$@"')

    def test_the_interpreter_itself_is_named(self, machine: Machine) -> None:
        self.python(machine, "python3.13")
        assert machine.run("find_python").stdout.strip() == sys.executable

    def test_shims_and_old_versions_are_passed_over(self, machine: Machine) -> None:
        """pyenv leaves a shim for every version that some other folder may use."""
        machine.add("python3.13", "exit 127")
        machine.add("python3", "exit 1")
        self.python(machine, "home/.pyenv/versions/3.12.1/bin/python3")
        assert machine.run("find_python").stdout.strip() == sys.executable

    def test_the_newest_of_pyenv_comes_first(self, machine: Machine) -> None:
        for version in ("3.12.1", "3.13.0", "3.9.18"):
            self.python(machine, f"home/.pyenv/versions/{version}/bin/python3")
        found = machine.run("python_candidates").stdout.split()
        assert [Path(path).parts[-3] for path in found] == ["3.13.0", "3.12.1", "3.9.18"]

    def test_uv_is_asked_last(self, machine: Machine) -> None:
        elsewhere = self.python(machine, "elsewhere/python3")
        machine.add("home/.local/bin/uv", f"echo {elsewhere}")
        assert machine.run("find_python").stdout.strip() == sys.executable

    def test_without_any_it_says_what_to_do(self, user: Machine) -> None:
        user.add("apt-cache", "exit 100")
        result = user.run("require_environment")
        assert result.returncode == 1
        assert "no Python 3.12 or newer" in result.stderr
        assert "uv python install 3.13" in result.stderr
        assert "pyenv install 3.13" in result.stderr

    def test_a_user_is_told_the_package(self, user: Machine) -> None:
        user.add("apt-cache", '[ "$2" = python3.12 ]')
        result = user.run("require_environment")
        assert result.returncode == 1
        assert "sudo apt-get install --no-install-recommends python3.12 python3.12-venv" in result.stderr

    def test_root_gets_it_installed(self, root: Machine) -> None:
        root.add("apt-cache", '[ "$2" = python3.13 ]')
        assert root.run("install_python").returncode == 0
        assert any(call.endswith("python3.13 python3.13-venv") for call in root.calls())

    def test_missing_ensurepip_is_a_package(self, user: Machine) -> None:
        python = self.python(user, "python3.13", without="ensurepip")
        result = user.run(f"create_environment {python}")
        assert result.returncode == 1
        assert f"python{sys.version_info.major}.{sys.version_info.minor}-venv" in result.stderr

    def test_uv_needs_no_ensurepip(self, user: Machine) -> None:
        python = self.python(user, "python3.13", without="ensurepip")
        user.add("uv")
        assert user.run(f"create_environment {python}").returncode == 0
        assert user.calls()[-1] == f"uv venv --quiet --clear --seed --python {python} .venv"

    def test_an_environment_that_works_stays(self, machine: Machine) -> None:
        self.python(machine, ".venv/bin/python")
        assert machine.run("require_environment").stdout == ""


class TestLocked:
    @pytest.fixture
    def prepared(self, machine: Machine) -> Machine:
        machine.add(".venv/bin/python")
        assert machine.run("require_locked requirements.lock").returncode == 0
        return machine

    def test_both_installations_are_locked_down(self, prepared: Machine) -> None:
        locked, editable = prepared.calls()
        assert locked.endswith("--require-hashes -r requirements.lock")
        assert editable.endswith("--no-deps --no-build-isolation -e .")

    def test_nothing_happens_twice(self, prepared: Machine) -> None:
        calls = prepared.calls()
        assert prepared.run("require_locked requirements.lock").stdout == ""
        assert prepared.calls() == calls

    @pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml", ".version", "scripts/python.sh"])
    def test_a_change_is_installed(self, prepared: Machine, name: str) -> None:
        with (prepared.folder / name).open("a") as file:
            file.write("# changed\n")
        assert "Installing" in prepared.run("require_locked requirements.lock").stdout

    def test_a_failure_is_tried_again(self, machine: Machine) -> None:
        machine.add(".venv/bin/python", "exit 1")
        for _ in range(2):
            result = machine.run("require_locked requirements.lock")
            assert result.returncode == 1
            assert "pip could not install requirements.lock" in result.stderr


class TestWheels:
    def test_they_are_fetched_once_for_each_lock(self, machine: Machine) -> None:
        machine.add("mkdir", f"exec {shutil.which('mkdir')} -p {machine.folder}/build/wheels")
        machine.add(".venv/bin/python", "mkdir")
        assert machine.run("require_wheels").returncode == 0
        [fetched] = [call for call in machine.calls() if call.startswith("python ")]
        assert "--only-binary :all: --require-hashes -r requirements.lock -d build/wheels" in fetched
        assert machine.run("require_wheels").stdout == ""
        (machine.folder / "requirements.lock").write_text("# changed\n")
        assert "Fetching" in machine.run("require_wheels").stdout

    def test_a_failure_is_tried_again(self, machine: Machine) -> None:
        machine.add(".venv/bin/python", "exit 1")
        for _ in range(2):
            result = machine.run("require_wheels")
            assert result.returncode == 1
            assert "pip could not fetch requirements.lock" in result.stderr


def test_an_unknown_word_is_a_usage_error() -> None:
    result = subprocess.run(
        ["scripts/setup.sh", "all"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "usage: scripts/setup.sh [run|ship|test|bench]" in result.stderr
