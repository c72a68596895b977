"""The single file: unpacked once, by whoever comes first, into a folder that is its user's alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

from marchproxy.version import VERSION
from tests.packaging import building

pytestmark = [pytest.mark.requires(commands=["patchelf", "strip"]), pytest.mark.timeout(900)]

OTHER = 65534
"""Somebody who is not root, and has no home."""


@pytest.fixture(scope="module")
def everybodys() -> Iterator[Path]:
    """A folder in which everybody may write; those of pytest are for root."""
    with TemporaryDirectory(prefix="marchproxy-test-") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


@pytest.fixture(scope="module")
def file(binary: Path, everybodys: Path) -> Path:
    """Where everybody can read it."""
    return Path(shutil.copy(binary, everybodys / "marchproxy"))


@pytest.fixture
def open_folder(everybodys: Path) -> Path:
    """One for each test."""
    folder = Path(mkdtemp(dir=everybodys))
    folder.chmod(0o1777)
    return folder


def run(
    file: Path, *words: str, before: str = "", user: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run it in a mount namespace of its own, after the commands `before`."""
    as_user = f"setpriv --reuid={user} --regid={user} --clear-groups " if user else ""
    script = f'{before}\nexec {as_user}"$0" "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, str(file), *words]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False
    )


def cached(folder: Path) -> list[str]:
    """What is in a cache, drafts included."""
    return sorted(path.name for path in (folder / "marchproxy").iterdir())


def test_it_names_its_version_and_what_it_is_called(binary: Path) -> None:
    assert binary.name == f"{building.ask('artifact_name')}-linux-amd64"
    assert binary.name.startswith(("marchproxy-beta-", f"marchproxy-v{VERSION.rpartition('.')[0]}"))
    assert binary.stat().st_size < 40_000_000


@pytest.mark.requires("root")
class TestUnpacking:
    def test_it_unpacks_once(self, file: Path, tmp_path: Path) -> None:
        assert run(file, "--version", MARCHPROXY_CACHE=str(tmp_path)).stdout == f"marchproxy {VERSION}\n"
        [build] = cached(tmp_path)
        unpacked = tmp_path / "marchproxy" / build
        assert (tmp_path / "marchproxy").stat().st_mode & 0o777 == 0o700
        made = unpacked.stat().st_ino
        shown = run(file, "version", "--output", "json", MARCHPROXY_CACHE=str(tmp_path))
        assert VERSION in shown.stdout
        assert unpacked.stat().st_ino == made

    def test_many_at_once_leave_one(self, file: Path, tmp_path: Path) -> None:
        environment = {"PATH": os.environ["PATH"], "MARCHPROXY_CACHE": str(tmp_path)}
        running = [
            subprocess.Popen([file, "--version"], env=environment, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        assert [process.communicate()[0] for process in running] == [f"marchproxy {VERSION}\n"] * 4
        assert len(cached(tmp_path)) == 1

    def test_it_is_one_process(self, file: Path, tmp_path: Path) -> None:
        """systemd watches the process that it started."""
        run(file, "--version", MARCHPROXY_CACHE=str(tmp_path))
        environment = {"PATH": os.environ["PATH"], "MARCHPROXY_CACHE": str(tmp_path)}
        environment |= {f"MARCHPROXY_{name}": str(tmp_path / name) for name in ("STATE_DIR", "RUNTIME_DIR")}
        subprocess.run([file, "init"], env=environment, check=True, capture_output=True)
        environment |= {"MARCHPROXY_METRICS_LISTEN": "off", "MARCHPROXY_WORKERS": "0"}
        with subprocess.Popen([file, "run", "--no-bpf"], env=environment, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            said = next((line for line in process.stderr if b"is ready" in line), b"")
            assert b"sockets tier" in said
            assert b"python3" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
            process.terminate()

    def test_a_file_that_was_cut_off_says_so(self, file: Path, tmp_path: Path) -> None:
        cut = tmp_path / "cut"
        cut.write_bytes(file.read_bytes()[:20_000_000])
        cut.chmod(0o755)
        result = run(cut, "--version", MARCHPROXY_CACHE=str(tmp_path))
        assert (result.returncode, result.stdout) == (75, "")
        assert "cannot unpack" in result.stderr
        assert cached(tmp_path) == []

    def test_a_full_disk_says_so_and_leaves_nothing(self, file: Path, tmp_path: Path) -> None:
        # Gone with the process that has mounted it: that is who looks.
        before = f"mount -t tmpfs -o size=30m none {tmp_path}"
        look = f'"$0" "$@"; code=$?; find {tmp_path}/marchproxy; exit "$code"'
        result = run(file, "--version", before=f"{before}\n{look}", MARCHPROXY_CACHE=str(tmp_path))
        assert (result.returncode, result.stdout) == (75, f"{tmp_path}/marchproxy\n")
        assert "No space left on device" in result.stderr
        assert len(result.stderr.splitlines()) <= 4
        assert "hint: MARCHPROXY_CACHE names a folder" in result.stderr

    def test_interrupted_it_leaves_nothing(self, file: Path, tmp_path: Path) -> None:
        environment = {"PATH": os.environ["PATH"], "MARCHPROXY_CACHE": str(tmp_path)}
        with subprocess.Popen([file, "--version"], env=environment, stdout=subprocess.PIPE) as process:
            while not (tmp_path / "marchproxy").exists() or not cached(tmp_path):
                assert process.poll() is None
            process.terminate()
        assert cached(tmp_path) == [] or process.returncode == 0

    def test_without_a_home_another_folder_does(self, file: Path, open_folder: Path) -> None:
        before = f"mount --bind {open_folder} /var/tmp"
        result = run(file, "--version", before=before, user=OTHER, HOME="/nonexistent")
        assert result.stdout == f"marchproxy {VERSION}\n", result.stderr
        assert (open_folder / f"marchproxy-{OTHER}").stat().st_mode & 0o777 == 0o700

    def test_where_programs_may_not_be_run_another_folder_does(self, file: Path, open_folder: Path) -> None:
        home, other = open_folder / "home", open_folder / "other"
        for folder in (home, other):
            folder.mkdir()
            folder.chmod(0o1777)
        before = f"mount -t tmpfs -o noexec,mode=777 none {home} && mount --bind {other} /var/tmp"
        result = run(file, "--version", before=before, user=OTHER, HOME=str(home))
        assert result.stdout == f"marchproxy {VERSION}\n", result.stderr

    @pytest.mark.parametrize("user", [0, OTHER], ids=["root", "other"])
    def test_where_nothing_can_be_written_another_folder_does(
        self, file: Path, open_folder: Path, user: int
    ) -> None:
        """A file system that is mounted read-only is so for root, too."""
        home, other = open_folder / "home", open_folder / "other"
        for folder in (home, other):
            folder.mkdir()
            folder.chmod(0o1777)
        # Root's first choice is below /var.
        first = home if user else "/var/cache"
        before = (
            f"mount --bind {home} {first} && mount -o remount,bind,ro {first} &&"
            f" mount --bind {other} /var/tmp && ! touch {first}/written 2>/dev/null || exit 1"
        )
        result = run(file, "--version", before=before, user=user, HOME=str(home))
        assert (result.stdout, result.stderr) == (f"marchproxy {VERSION}\n", "")
        assert list(home.iterdir()) == []
        assert [path.name for path in other.iterdir()] == [f"marchproxy-{user}"]

    def test_what_somebody_else_has_put_there_is_not_run(self, file: Path, open_folder: Path) -> None:
        """In a folder for everybody, an attacker may have been there first."""
        run(file, "--version", MARCHPROXY_CACHE=str(open_folder / "first"))
        [build] = cached(open_folder / "first")
        program = open_folder / f"marchproxy-{OTHER}" / build / "bin" / "marchproxy"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\necho stolen\n")
        program.chmod(0o755)
        before = f"mount --bind {open_folder} /var/tmp"
        result = run(file, "--version", before=before, user=OTHER, HOME="/nonexistent")
        assert (result.returncode, result.stdout) == (75, "")
        assert "cannot write to" in result.stderr


@pytest.fixture(scope="module")
def moved(payload: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The payload somewhere else, under a name with a blank."""
    folder = tmp_path_factory.mktemp("moved") / "a folder"
    shutil.copytree(payload, folder, symlinks=True)
    yield folder
    shutil.rmtree(folder)


class TestPayload:
    def test_it_needs_nothing_of_this_machine_but_libc(self, moved: Path) -> None:
        program = (
            "import aioquic.quic.connection, bz2, ctypes, dns.resolver, lzma, prometheus_client, pydal\n"
            "import pyroute2, rich, sqlite3, ssl, textual.app, uuid, uvloop, yaml, zlib\n"
            "from cryptography.hazmat.primitives.ciphers.aead import AESGCM\n"
            "for line in open('/proc/self/maps'):\n"
            "    if '.so' in line: print(line.split(None, 5)[5], end='')"
        )
        [python] = moved.glob("bin/python3.*")
        loaded = subprocess.check_output([str(python), "-I", "-c", program], text=True, env={})
        outside = {
            Path(line).name.partition(".so")[0] for line in loaded.splitlines() if str(moved) not in line
        }
        assert outside <= {"ld-linux-x86-64", "libc", "libm", "libpthread", "librt", "libdl", "libutil"}

    def test_environment_and_folder_have_no_say(self, moved: Path, tmp_path: Path) -> None:
        (tmp_path / "marchproxy").mkdir()
        (tmp_path / "marchproxy" / "__init__.py").write_text("raise SystemExit('taken over')")
        command = [str(moved / "bin" / "marchproxy"), "--version"]
        said = subprocess.check_output(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, text=True)
        assert said == f"marchproxy {VERSION}\n"

    def test_a_link_to_the_command_finds_the_rest(self, moved: Path, tmp_path: Path) -> None:
        (tmp_path / "linked").symlink_to(moved / "bin" / "marchproxy")
        assert subprocess.check_output([tmp_path / "linked", "--version"], text=True).endswith(f"{VERSION}\n")

    def test_everything_is_compiled(self, payload: Path) -> None:
        tag = sys.implementation.cache_tag
        sources = list((payload / "lib").rglob("*.py"))
        missing = [p for p in sources if not (p.parent / "__pycache__" / f"{p.stem}.{tag}.pyc").exists()]
        assert len(sources) > 1000
        assert missing == []

    def test_objects_are_those_of_the_list(self, payload: Path) -> None:
        [folder] = payload.glob("lib/python3.*/site-packages/marchproxy/bpf/objects")
        checked = subprocess.run(
            ["sha256sum", "--check", "--quiet", "SHA256SUMS"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.stdout + checked.stderr == ""
        assert {"tc.bpf.o", "xdp.bpf.o", "handoff.bpf.o", "lookup.bpf.o"} <= {
            p.name for p in folder.iterdir()
        }
