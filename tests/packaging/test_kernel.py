"""The package on the kernels of distributions, in emulated machines: Debian 12's 6.1, where the kernel
carries, and Ubuntu 22.04's 5.15, which is too old for the programs.

`make qemu` runs it; it takes a quarter of an hour, or three of them on a busy machine, and needs what
scripts/testkernel.sh fetches. What happens in the machines is in `guest/`.
"""

import json
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

PATIENCE = 3300
"""Seconds: two emulated processors of a busy machine."""
PAGE = "it is the server"
UNIT = """\
[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/bash /srv/guest/{suite}.sh
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


def disk(folder: Path, suite: str, kernel: Path, package: Path) -> Path:
    """The machine's root, all of it in memory."""
    tree = folder / "root"
    # By cp, for there are devices among the files.
    subprocess.run(["cp", "-a", root(suite), tree], check=True)
    subprocess.run(["cp", "-a", f"{kernel / 'tree'}/.", tree], check=True)
    shutil.copy(package, tree / "srv" / "this.deb")
    shutil.copytree(ROOT / "tests" / "packaging" / "guest", tree / "srv" / "guest")
    units = tree / "etc" / "systemd" / "system"
    (units / "guest.service").write_text(UNIT.format(suite=suite))
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants" / "guest.service").symlink_to("../guest.service")
    (units / "serial-getty@ttyS0.service").symlink_to("/dev/null")
    image = folder / "root.cpio.gz"
    script = f"find . | cpio --quiet --create --format=newc | gzip -1 >{image}"
    subprocess.run(["sh", "-c", script], cwd=tree, check=True)
    shutil.rmtree(tree)
    return image


def boot(suite: str, package: Path, folder: Path) -> Mapping[str, str]:
    """What the machine said, by heading."""
    kernel = ROOTS / f"kernel-{suite}"
    if not kernel.is_dir():
        pytest.skip(f"there is no kernel of {suite}; `make qemu` fetches it, given a mirror")
    image = disk(folder, suite, kernel, package)
    command = [*QEMU, "-kernel", str(kernel / "vmlinuz"), "-initrd", str(image)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    image.unlink()
    text = done.stdout.replace("\r", "")
    assert "== end" in text, text[-5000:]
    parts = re.split(r"^== (\S+)\n", text, flags=re.MULTILINE)
    return {name: part.strip() for name, part in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.fixture(scope="module")
def said(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """By Debian 12 on its own kernel."""
    return boot("bookworm", package, tmp_path_factory.mktemp("bookworm"))


@pytest.fixture(scope="module")
def said_of_old(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """By Ubuntu 22.04 on its own kernel."""
    return boot("jammy", package, tmp_path_factory.mktemp("jammy"))


def test_it_is_that_kernel(said: Mapping[str, str]) -> None:
    assert said["kernel"].startswith("6.1.")
    assert said["install"] == f"marchproxy {VERSION}"


def test_the_wizard_ends_with_a_gateway_that_the_kernel_carries(said: Mapping[str, str]) -> None:
    assert "the gateway runs: kernel tier, revision 2" in said["wizard"], said["journal"]
    assert "tier kernel" in said["status"]
    # There is no tcx before 6.6.
    assert said["attached"] == "clsact clsact"


def test_what_is_allowed_passes_and_nothing_else(said: Mapping[str, str]) -> None:
    assert PAGE not in said["denied"]
    assert said["routed"] == PAGE
    assert said["listener"] == PAGE


def test_the_programs_say_what_the_policy_says(said: Mapping[str, str]) -> None:
    assert "NO_MAPPING" in said["explained"]
    assert "could not be asked" not in said["explained"]


@pytest.mark.parametrize("mode", ["xdp-generic", "xdp"])
def test_xdp_does_the_same(said: Mapping[str, str], mode: str) -> None:
    attached, before, routed, listener, denied, after = said[mode].splitlines()
    assert (attached, routed, listener) == (f"{mode} {mode}", PAGE, PAGE), said["journal"]
    assert denied.startswith("refused: ")
    (carried, left), (carried_then, left_then) = (map(int, each.split()) for each in (before, after))
    # TC carries what XDP leaves to it, and nothing else.
    by_xdp = (carried_then - carried) > (left_then - left)
    # A device that XDP runs on generically takes no frames from it.
    assert by_xdp == (mode == "xdp")


def test_the_kernel_takes_a_tunnel_that_goes_on_whole(said: Mapping[str, str]) -> None:
    (flow,) = (each for each in json.loads(said["tunnel"]) if each["mapping"] == "echo")
    assert (flow["reason"], flow["tier"], flow["state"]) == ("HANDED_OFF", "tc", "established")
    assert said["tunnel-by-xdp"].splitlines() == [f"part {part} came back whole" for part in (1, 2, 3)]


def test_a_restart_goes_on_and_a_purge_leaves_nothing(said: Mapping[str, str]) -> None:
    assert (said["restarted"], said["restarts"], said["purge"]) == (PAGE, "0", "")


def test_a_kernel_too_old_for_the_programs_is_named_everywhere(said_of_old: Mapping[str, str]) -> None:
    kernel = said_of_old["kernel"]
    assert kernel.startswith("5.15.")
    assert said_of_old["install"] == f"marchproxy {VERSION}"
    reason = f"kernel {kernel} has no bpf_loop; programs need kernel 6.1"
    assert f"tier sockets: {reason}" in said_of_old["status"]
    assert "the gateway runs: sockets tier, revision 2" in said_of_old["wizard"], said_of_old["journal"]
    assert f"! listeners only, nothing that is routed is carried or denied: {reason}" in said_of_old["wizard"]
    assert f"sockets carry, not the kernel: {reason}" in said_of_old["journal"]
    assert f"kernel {kernel}: bpf_loop: no (not in this kernel; needs kernel 5.17)" in said_of_old["doctor"]
    assert "kernel 6.1 would do" in said_of_old["doctor"]
    assert "apt-get install linux-image-amd64" in said_of_old["doctor"]


def test_its_sockets_carry_what_they_can_and_say_what_they_cannot(said_of_old: Mapping[str, str]) -> None:
    assert said_of_old["listener"] == PAGE
    assert said_of_old["tunnel"].splitlines() == [f"part {part} came back whole" for part in (1, 2, 3)]
    assert said_of_old["denied"].startswith("refused: ")
    assert said_of_old["routed"].startswith("refused: ")
    assert "routed traffic is not carried without BPF: mapping echo and 1 more" in said_of_old["status"]
    assert "Traceback" not in "".join(said_of_old.values())


def test_it_does_not_go_round_and_leaves_nothing(said_of_old: Mapping[str, str]) -> None:
    assert (said_of_old["restarted"], said_of_old["restarts"]) == (PAGE, "0")
    assert (said_of_old["pins"], said_of_old["purge"]) == ("", "")
