"""The package on Debian 12's own kernel, 6.1, in an emulated machine: the kernel carries there, too.

`make qemu` runs it; it takes a quarter of an hour, or three of them on a busy machine, and needs what
scripts/testkernel.sh fetches.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from marchproxy.version import VERSION
from tests.packaging.box import ROOTS, root
from tests.repo.tree import ROOT

pytestmark = [
    pytest.mark.requires("root", commands=["qemu-system-x86_64", "cpio"]),
    pytest.mark.timeout(3600),
]

KERNEL = ROOTS / "kernel"
PATIENCE = 3300
"""Seconds: two emulated processors of a busy machine."""
UNIT = """\
[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/srv/guest.sh
"""
FETCH = """\
import sys, urllib.request
try:
    print(urllib.request.urlopen(f"http://{sys.argv[1]}/", timeout=20).read().decode().strip())
except OSError as error:
    sys.exit(f"refused: {error}")
"""
QEMU = (
    *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3072"),
    *(
        "-net",
        "none",
        "-nographic",
        "-no-reboot",
        "-append",
        "console=ttyS0 panic=-1 rdinit=/sbin/init quiet",
    ),
)


def disk(folder: Path, package: Path) -> Path:
    """The machine's root, all of it in memory."""
    tree = folder / "root"
    # By cp, for there are devices among the files.
    subprocess.run(["cp", "-a", root("bookworm"), tree], check=True)
    subprocess.run(["cp", "-a", f"{KERNEL / 'tree'}/.", tree], check=True)
    shutil.copy(package, tree / "srv" / "this.deb")
    shutil.copy(ROOT / "tests" / "packaging" / "guest.sh", tree / "srv")
    (tree / "srv" / "guest.sh").chmod(0o755)
    (tree / "srv" / "fetch.py").write_text(FETCH)
    units = tree / "etc" / "systemd" / "system"
    (units / "guest.service").write_text(UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants" / "guest.service").symlink_to("../guest.service")
    (units / "serial-getty@ttyS0.service").symlink_to("/dev/null")
    image = folder / "root.cpio.gz"
    script = f"find . | cpio --quiet --create --format=newc | gzip -1 >{image}"
    subprocess.run(["sh", "-c", script], cwd=tree, check=True)
    shutil.rmtree(tree)
    return image


@pytest.fixture(scope="module")
def said(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What the machine said, by heading."""
    if not KERNEL.is_dir():
        pytest.skip("there is no kernel; `make qemu` fetches it, given a mirror of Debian")
    image = disk(tmp_path_factory.mktemp("machine"), package)
    command = [*QEMU, "-kernel", str(KERNEL / "vmlinuz"), "-initrd", str(image)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    image.unlink()
    text = done.stdout.replace("\r", "")
    assert "== end" in text, text[-5000:]
    parts = re.split(r"^== (\S+)\n", text, flags=re.MULTILINE)
    return {name: part.strip() for name, part in zip(parts[1::2], parts[2::2], strict=True)}


def test_it_is_that_kernel(said: Mapping[str, str]) -> None:
    assert said["kernel"].startswith("6.1.")
    assert said["install"] == f"marchproxy {VERSION}"


def test_the_wizard_ends_with_a_gateway_that_the_kernel_carries(said: Mapping[str, str]) -> None:
    assert "the gateway runs: kernel tier, revision 2" in said["wizard"], said["journal"]
    assert "tier kernel" in said["status"]
    # There is no tcx before 6.6.
    assert said["attached"] == "clsact clsact"


def test_what_is_allowed_passes_and_nothing_else(said: Mapping[str, str]) -> None:
    assert "it is the server" not in said["denied"]
    assert said["routed"].endswith("it is the server")
    assert said["listener"].endswith("it is the server")


def test_the_programs_say_what_the_policy_says(said: Mapping[str, str]) -> None:
    assert "NO_MAPPING" in said["explained"]
    assert "could not be asked" not in said["explained"]


def test_a_restart_goes_on_and_a_purge_leaves_nothing(said: Mapping[str, str]) -> None:
    assert (said["restarted"], said["restarts"], said["purge"]) == ("it is the server", "0", "")
