"""The Debian package in real systems: installed, started, used, removed."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.version import VERSION
from rig import Rig
from rig.traffic import fetch
from tests.packaging.booted import INSTALL, MARKS, PID, PYTHON, VIP, drop_in
from tests.packaging.box import Box
from tests.repo.tree import ROOT

pytestmark = MARKS

FIRST_START = 120.0
"""Seconds at most from a file on a box without a network to a gateway that allows and denies."""
WIZARD = "printf '%s\\n' inside0 outside0 no /srv/bad.txt '' yes"
"""A command that prints answers to the wizard; a block list is one of them."""
BLOCKED = "10.2.0.77"


@contextmanager
def in_time(what: str) -> Iterator[None]:
    """What is done in the block takes no longer than a first start may; says how long it took."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    print(f"first start of {what}: {took:.1f} s")
    assert took < FIRST_START


def assert_a_gateway_runs(rig: Rig) -> None:
    """One request is allowed, and another denied."""
    assert b"server" in rig.client.call(fetch, "10.2.0.2", 80)
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, BLOCKED, 80)


def test_it_installs_without_network_and_starts_once_there_is_a_store(box: Box) -> None:
    assert "marchproxy" not in box.ok("systemctl list-units --failed --no-legend --plain")
    box.ok(INSTALL)
    assert box.ok("marchproxy --version") == f"marchproxy {VERSION}"
    assert box.run("systemctl is-active marchproxy").stdout == "inactive\n"
    assert box.ok("systemctl is-enabled marchproxy") == "enabled"
    box.ok("marchproxy init && systemctl start marchproxy")
    assert box.ok("systemctl is-active marchproxy") == "active"
    assert box.ok("marchproxy status | grep ^tier") == "tier kernel: BPF is permitted"
    # Ready, and said so to systemd.
    assert "revision 1, kernel tier" in box.ok("systemctl show --property=StatusText --value marchproxy")
    assert box.ok("systemctl list-units --failed --no-legend --plain") == ""


def test_it_runs_as_nobody_else_and_with_few_rights(defined: Box) -> None:
    status = defined.ok(f"cat /proc/$({PID})/status")
    for line in ("CapEff:\t000000c000003400", "CapBnd:\t000000c000003400", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status.splitlines()
    owner = defined.ok("id --user marchproxy")
    assert f"Uid:\t{owner}\t{owner}\t{owner}\t{owner}" in status
    assert owner != "0"
    exposure = defined.ok("systemd-analyze security --no-pager marchproxy | tail -n 1")
    assert float(exposure.partition("marchproxy.service: ")[2].split()[0]) <= 2.5
    assert defined.ok("systemd-analyze verify --man=no marchproxy.service 2>&1") == ""
    assert defined.ok("stat --format='%U %a' /var/lib/marchproxy/marchproxy.db /var/lib/marchproxy") == (
        "marchproxy 600\nmarchproxy 700"
    )
    assert set(defined.ok("ss -Htln | awk '{ print $4 }' | grep :9090").split()) == {"127.0.0.1:9090"}


def test_what_is_allowed_passes_and_the_rest_does_not(rig: Rig, defined: Box) -> None:
    assert b"server" in rig.client.call(fetch, VIP, 80)
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, VIP, 81)
    # Its ping needs a capability, forwarding a setting of the kernel.
    defined.until("marchproxy status")
    assert defined.ok("cat /proc/sys/net/ipv4/conf/inside0/forwarding") == "1"
    assert defined.ok('marchproxy doctor --output json | grep -c \'"severity": "error"\' || true') == "0"


def test_the_wizard_s_answers_are_piped_in_and_a_gateway_runs(rig: Rig, box: Box) -> None:
    box.ok(f"echo {BLOCKED} >/srv/bad.txt")
    came_from = "SSH_CONNECTION='10.1.0.2 50000 10.1.0.1 2222'"
    with in_time("the package"):
        box.ok(INSTALL)
        box.ok(f"{WIZARD} | {came_from} marchproxy init --wizard 2>/srv/said")
        assert_a_gateway_runs(rig)
    said = box.ok("cat /srv/said")
    assert "starting marchproxy.service" in said
    assert "the gateway runs: kernel tier, revision 2" in said
    assert "MARCHPROXY_MANAGEMENT_PORTS=22,2222" in box.ok("cat /etc/marchproxy/marchproxy.env").splitlines()
    assert box.ok("systemctl is-active marchproxy") == "active"
    box.until('marchproxy flows --denied --output json | grep -q \'"verdict": "audit"\'')
    assert box.run("marchproxy init --wizard --inside inside0 --yes").returncode == 4
    box.ok("marchproxy reset --stop --yes")
    assert box.ok("ls -A /var/lib/marchproxy /sys/fs/bpf/marchproxy 2>/dev/null || true").split() == [
        "/var/lib/marchproxy:"
    ]


def test_by_default_it_listens_on_nothing_public(installed: Box) -> None:
    """Nor does anything else in the box, of which all sockets are looked at, whoever holds them."""
    every = "ss --no-header --listening --tcp --udp --numeric"
    assert installed.ok(every) == ""
    installed.ok(f"echo {BLOCKED} >/srv/bad.txt")
    installed.ok(f"{WIZARD} | marchproxy init --wizard")
    installed.until("marchproxy status")
    # ADDRESS:PORT, an IPv6 address in brackets.
    local = [line.split()[4].rpartition(":") for line in installed.ok(every).splitlines()]
    assert ("127.0.0.1", ":", "9090") in local
    assert [address for address, _, _ in local if not ip_address(address.strip("[]")).is_loopback] == []


def test_the_single_file_as_a_service(rig: Rig, box: Box, binary: Path, files: Path) -> None:
    """By the very lines of docs/INSTALL.md."""
    page = (ROOT / "docs" / "INSTALL.md").read_text()
    [recipe] = re.findall(r"^```sh\n(install -m 755 [^`]*^marchproxy autostart\n)^```", page, re.MULTILINE)
    alone = files / "alone"
    alone.mkdir(exist_ok=True)
    shutil.copy(binary, alone)
    box.ok(f"echo {BLOCKED} >/srv/bad.txt")
    with in_time("the single file"):
        box.ok(f"cd /files/alone && set -e\n{recipe}")
        box.ok(f"{WIZARD} | marchproxy init --wizard 2>/srv/said")
        assert_a_gateway_runs(rig)
    assert "the gateway runs: kernel tier, revision 2" in box.ok("cat /srv/said")
    box.ok("marchproxy appliance set --audit off")
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, "10.2.0.2", 80)
    assert box.ok("systemctl show --property=NRestarts --value marchproxy") == "0"
    assert (
        box.ok("ps --no-headers -o user:20 $(systemctl show --property=MainPID --value marchproxy)")
        == "marchproxy"
    )
    box.ok("marchproxy autostart --remove && marchproxy detach --yes")
    assert box.run("systemctl cat marchproxy").returncode != 0
    assert box.ok("find /etc -name '*marchproxy*.service' -o -name 'marchproxy.conf'") == ""


def test_the_terminal_on_a_console_only_looks(defined: Box) -> None:
    assert defined.run("systemctl is-enabled marchproxy-tui@tty7").stdout == "disabled\n"
    defined.ok(f"systemd-run --quiet --unit=console {PYTHON} /files/console.py")
    unit = f"marchproxy-tui@{defined.until('cat /srv/console | grep .').replace('/', '-')}"
    defined.ok(f"systemctl start {unit}")
    # Its tabs, and that it has been told of the appliance.
    defined.until("grep -a -q Denials /srv/screen && grep -a -q inside0 /srv/screen")
    assert defined.ok(f"systemctl show --property=NRestarts --value {unit}") == "0"
    assert defined.ok(f"ps --no-headers -o user:20 $(systemctl show --property=MainPID --value {unit})") == (
        "marchproxy"
    )
    defined.ok("apt-get remove -y marchproxy")
    assert defined.run(f"systemctl is-active {unit}").stdout.strip() in {"inactive", "failed"}


def test_the_key_of_secrets_may_be_an_encrypted_credential(installed: Box) -> None:
    """As docs/INSTALL.md says it."""
    key = "/etc/credstore.encrypted/marchproxy.key"
    installed.ok(
        "install -d -m 700 /etc/credstore.encrypted &&"
        " head -c 32 /dev/urandom | basenc --base64url | tr -d = |"
        f" systemd-creds encrypt --name=marchproxy.key - {key}"
    )
    installed.ok(drop_in(f"LoadCredentialEncrypted=marchproxy.key:{key}"))
    installed.ok("marchproxy init && systemctl start marchproxy")
    installed.ok("marchproxy service add api --address 10.2.0.2 --auth jwt")
    with_key = "CREDENTIALS_DIRECTORY=/run/credentials/marchproxy.service"
    installed.ok(f"{with_key} marchproxy token issue api | grep -q .")
    # What was sealed was sealed under the credential, and the daemon reads it.
    assert installed.run("ls /var/lib/marchproxy/secret.key").returncode != 0
    installed.ok("systemctl restart marchproxy")
    assert "secret" not in installed.ok("marchproxy status || true")
