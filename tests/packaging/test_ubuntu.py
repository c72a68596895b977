"""The Debian package on Ubuntu, of other systemd and glibc: installed without a network, used, removed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy.version import VERSION
from rig import Rig
from rig.servers import start_http
from rig.traffic import fetch
from tests.packaging.box import Box

pytestmark = [
    pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", "tcx", commands=["systemd-nspawn"]),
    # The first one builds the package.
    pytest.mark.timeout(900),
]

DEFINE = """\
marchproxy init --output json >/srv/key
systemctl start marchproxy
marchproxy interface add inside0 --role inside
marchproxy interface add outside0 --role outside
marchproxy service add clients --address 10.1.0.0/24
marchproxy service add web --address 10.2.0.2 --port 80
marchproxy mapping add web --from clients --to web --protocol tcp --listen 10.1.0.1:80
marchproxy mapping add not --from clients --to web --protocol tcp --listen 10.1.0.1:81 --action deny
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        start_http(built.server)
        yield built


@pytest.fixture(params=["jammy", "noble"])
def box(
    request: pytest.FixtureRequest, rig: Rig, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    files = tmp_path_factory.mktemp("files")
    shutil.copy(package, files / "this.deb")
    with Box(request.param, rig.middle.name, files) as booted:
        yield booted


def test_it_carries_what_is_allowed_and_leaves_nothing(rig: Rig, box: Box) -> None:
    box.ok("apt-get install -y /files/this.deb")
    assert box.ok("marchproxy --version") == f"marchproxy {VERSION}"
    box.ok(DEFINE)
    assert box.ok("marchproxy status | grep ^tier") == "tier kernel: BPF is permitted"
    assert b"server" in rig.client.call(fetch, "10.1.0.1", 80)
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, "10.1.0.1", 81)
    box.ok("systemctl restart marchproxy")
    assert b"server" in rig.client.call(fetch, "10.1.0.1", 80)
    exposure = box.ok("systemd-analyze security --no-pager marchproxy | tail -n 1")
    assert float(exposure.partition("marchproxy.service: ")[2].split()[0]) <= 2.5
    box.ok("apt-get purge -y marchproxy")
    assert box.ok("find / -xdev -iname '*marchproxy*'") == ""
    assert "marchproxy" not in box.ok("ls -A /run /sys/fs/bpf")
