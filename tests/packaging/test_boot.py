"""The Debian package in real systems: installed, started, upgraded under traffic, removed.

Each test has a Debian of its own, whose network is the middle host of a rig.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marchproxy import bpf
from marchproxy.version import VERSION
from rig import Rig
from rig.servers import start_echo, start_http
from rig.traffic import Talk, ask_udp, fetch
from tests.packaging.box import Box
from tests.packaging.load import Load, retransmitted
from tests.repo.tree import ROOT

pytestmark = [
    pytest.mark.requires(
        "root", "netns", "veth", "bpf", "bpffs", "tcx", commands=["systemd-nspawn", "dpkg-deb"]
    ),
    # The first one builds the package, and the root of each release.
    pytest.mark.timeout(900),
]

SUITES = ["bookworm", "trixie"]
VIP = "10.1.0.1"
INSTALL = "apt-get install -y /files/this.deb"
NEWER = f"{VERSION}.1"
DEFINE = """\
marchproxy init --output json >/srv/key
systemctl start marchproxy
marchproxy interface add inside0 --role inside
marchproxy interface add outside0 --role outside
marchproxy service add clients --address 10.1.0.0/24
marchproxy service add web --address 10.2.0.2 --port 80 --health icmp
marchproxy service add echo --address 10.2.0.2 --port 7
marchproxy mapping add web --from clients --to web --protocol tcp --listen 10.1.0.1:80
marchproxy mapping add echo --from clients --to echo --protocol tcp,udp --listen 10.1.0.1:7007
marchproxy mapping add not --from clients --to web --protocol tcp --listen 10.1.0.1:81 --action deny
"""
PID = "systemctl show --property=MainPID --value marchproxy"
CAPABILITIES = {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}
PYTHON = "/usr/lib/marchproxy/bin/python3.* -I"
CONSOLE = """\
import fcntl, os, pty, struct, termios, time
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
with open("/srv/console", "w") as name, open("/srv/screen", "wb", buffering=0) as screen:
    print(os.ttyname(slave).removeprefix("/dev/"), file=name, flush=True)
    while True:
        try:
            screen.write(os.read(master, 65536))
        except OSError:
            time.sleep(0.05)
"""
"""A terminal that nobody sits at, and what is drawn on it."""
NEWER_STORE = """\
import sqlite3
store = sqlite3.connect("/var/lib/marchproxy/marchproxy.db")
row = (9999, "of_the_future", "2030-01-01 00:00:00")
store.execute("INSERT INTO migration (number, name, time) VALUES (?, ?, ?)", row)
store.commit()
"""


def drop_in(*lines: str) -> str:
    """A command that adds lines to the unit."""
    folder, text = "/run/systemd/system/marchproxy.service.d", "\\n".join(["[Service]", *lines, ""])
    return f"mkdir -p {folder} && printf '{text}' >{folder}/more.conf && systemctl daemon-reload"


def lacking(capability: str) -> str:
    """A command that takes one capability from the unit."""
    left = " ".join(sorted(CAPABILITIES - {capability}))
    return drop_in("AmbientCapabilities=", f"AmbientCapabilities={left}")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as built:
        start_http(built.server)
        start_echo(built.server)
        yield built


@pytest.fixture(scope="module")
def files(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This package, and one that differs in its version alone."""
    folder = tmp_path_factory.mktemp("files")
    shutil.copy(package, folder / "this.deb")
    unpacked = tmp_path_factory.mktemp("newer") / "package"
    subprocess.run(["dpkg-deb", "-R", package, unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {VERSION}\n", f"Version: {NEWER}\n"))
    [version] = unpacked.glob("usr/lib/marchproxy/lib/python3.*/site-packages/marchproxy/.version")
    version.write_text(f"v{NEWER}\n")
    command = [
        "dpkg-deb",
        "--root-owner-group",
        "-Zgzip",
        "-z1",
        "-b",
        str(unpacked),
        str(folder / "newer.deb"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(unpacked)
    (folder / "console.py").write_text(CONSOLE)
    (folder / "newer_store.py").write_text(NEWER_STORE)
    # A release, where there is one to come from; else what differs in its version alone.
    previous = os.environ.get("MARCHPROXY_TEST_PREVIOUS")
    shutil.copy(previous or folder / "newer.deb", folder / "other.deb")
    return folder


@pytest.fixture(params=SUITES)
def box(request: pytest.FixtureRequest, rig: Rig, files: Path) -> Iterator[Box]:
    with Box(request.param, rig.middle.name, files) as booted:
        yield booted


@pytest.fixture
def installed(box: Box) -> Box:
    box.ok(INSTALL)
    return box


@pytest.fixture
def defined(installed: Box) -> Box:
    """With listeners, and a daemon that serves them."""
    installed.ok(DEFINE)
    return installed


def while_talking(rig: Rig, disturb: Callable[[], object]) -> None:
    """Talk through the appliance on one connection all the time, and see every answer come."""
    begun, over, failures = threading.Event(), threading.Event(), list[BaseException]()

    def talk() -> None:
        with Talk(VIP, 7007) as kept:
            while not over.wait(0.001):
                assert kept.say(b"still here") == b"still here"
                begun.set()

    def watched() -> None:
        try:
            rig.client.call(talk)
        except BaseException as error:
            failures.append(error)
        begun.set()

    thread = threading.Thread(target=watched)
    thread.start()
    begun.wait(10)
    try:
        disturb()
    finally:
        over.set()
        thread.join(10)
    assert failures == []


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


def test_reload_restart_and_a_watchdog_leave_flows_alone(rig: Rig, defined: Box) -> None:
    def disturb() -> None:
        before = defined.ok(PID)
        defined.ok("systemctl reload marchproxy")
        assert defined.ok(PID) == before
        defined.ok("systemctl restart marchproxy")
        defined.ok(f"{drop_in('WatchdogSec=6')} && systemctl restart marchproxy")
        hung = defined.ok(PID)
        defined.ok(f"kill -STOP {hung}")
        defined.until(f"[ $({PID}) != {hung} ] && systemctl is-active marchproxy && marchproxy status")
        assert "Watchdog timeout" in defined.journal()

    while_talking(rig, disturb)


def test_who_connects_during_a_restart_waits(rig: Rig, defined: Box) -> None:
    """systemd holds the listening sockets of those whom the daemon has to hear first."""
    defined.ok("marchproxy listener add explicit --bind 10.1.0.1:3128")
    over, refused, again = threading.Event(), list[OSError](), list[int]()

    def knock() -> None:
        while not over.wait(0.02):
            try:
                with socket.create_connection((VIP, 3128), timeout=60) as sock:
                    again.append(retransmitted(sock))
            except OSError as error:
                refused.append(error)

    thread = threading.Thread(target=lambda: rig.client.call(knock))
    thread.start()
    try:
        defined.ok("systemctl restart marchproxy && systemctl restart marchproxy")
    finally:
        over.set()
        thread.join(70)
    assert refused == []
    # Nobody had to ask twice, either: the kernel answers for a socket that is held.
    assert set(again) == {0}
    assert len(again) > 10


def test_an_upgrade_and_a_downgrade_cut_no_flow(rig: Rig, defined: Box) -> None:
    def flow() -> dict[str, int]:
        flows = json.loads(defined.ok("marchproxy flows --output json --protocol tcp"))
        return next(row for row in flows if row["destination_port"] == 7007)

    def disturb() -> None:
        before = flow()
        defined.ok("echo MARCHPROXY_DRAIN_SECONDS=2 >>/etc/marchproxy/marchproxy.env")
        defined.ok("apt-get install -y /files/newer.deb")
        status = defined.ok("marchproxy status --output json")
        assert f'"version": "{NEWER}"' in status
        defined.ok("apt-get install -y --allow-downgrades /files/this.deb")
        assert f'"version": "{VERSION}"' in defined.ok("marchproxy status --output json")
        after = flow()
        assert (after["id"], after["started"]) == (before["id"], before["started"])
        assert after["packets_sent"] > before["packets_sent"]

    while_talking(rig, disturb)
    # What the administrator has changed stays.
    assert "MARCHPROXY_DRAIN_SECONDS=2" in defined.ok("cat /etc/marchproxy/marchproxy.env")


def conversations(box: Box) -> dict[int, dict[str, Any]]:
    """What is carried, by its id."""
    rows = json.loads(box.ok("marchproxy flows --output json --limit 5000"))
    return {row["id"]: row for row in rows if row["source"] == "10.1.0.2"}


def test_a_thousand_conversations_outlive_an_upgrade_and_the_way_back(rig: Rig, box: Box) -> None:
    """None is cut, no datagram lost, and what is counted goes on being counted."""
    box.ok("apt-get install -y /files/other.deb")
    box.ok(DEFINE)
    box.ok("marchproxy listener add explicit --bind 10.1.0.1:3128")
    box.ok("marchproxy mapping add out --from clients --to echo --protocol tcp --ports 7")
    load = Load(rig.client, (VIP, 7007), (VIP, 3128), "10.2.0.2:7")
    try:
        load.open()
        handed = "marchproxy flows --output json --limit 5000 --reason HANDED_OFF | grep -c HANDED_OFF"
        with load:
            box.until(f'[ "$({handed})" -ge {load.tunnels} ]')
            before, rounds = conversations(box), load.rounds
            box.ok("apt-get install -y --allow-downgrades /files/this.deb")
            assert f'"version": "{VERSION}"' in box.ok("marchproxy status --output json")
            between = conversations(box)
            box.ok("apt-get install -y --allow-downgrades /files/other.deb")
            after = conversations(box)
        assert load.failures == []
        assert load.rounds > rounds
        print(f"{len(before)} conversations, {load.rounds} rounds, {load.retransmitted} segments sent again")
    finally:
        load.close()
    assert len(before) == load.flows + load.tunnels + load.datagrams
    for held in (between, after):
        assert held.keys() >= before.keys()
        for number, row in before.items():
            assert held[number]["started"] == row["started"]
            assert held[number]["packets_sent"] > row["packets_sent"]
            assert held[number]["packets_received"] > row["packets_received"]


def test_a_downgrade_says_what_it_cannot_carry_over(rig: Rig, defined: Box) -> None:
    defined.ok("apt-get install -y /files/newer.deb")
    before = defined.ok(PID)
    defined.ok(f"{PYTHON} /files/newer_store.py")
    said = defined.ok("apt-get install -y --allow-downgrades /files/this.deb 2>&1")
    assert "newer" in said
    assert "marchproxy: not restarted, see above" in said
    assert defined.ok(PID) == before
    assert b"server" in rig.client.call(fetch, VIP, 80)


def test_a_store_that_the_new_version_cannot_read_leaves_the_old_one_running(rig: Rig, defined: Box) -> None:
    before = defined.ok(PID)
    defined.ok(
        "cp -a /var/lib/marchproxy/marchproxy.db /srv/ && echo broken >/var/lib/marchproxy/marchproxy.db"
    )
    said = defined.run("apt-get install -y /files/newer.deb 2>&1")
    assert said.returncode == 0, said.stdout
    assert "marchproxy: not restarted, see above" in said.stdout
    assert defined.ok(PID) == before
    assert b"server" in rig.client.call(fetch, VIP, 80)


def test_removed_it_leaves_only_the_state_and_purged_nothing(rig: Rig, installed: Box) -> None:
    # Boxes before this one have left it on.
    rig.middle.sysctl({f"net.ipv{family}.conf.inside0.forwarding": "0" for family in (4, 6)})
    defined = installed
    defined.ok(DEFINE)
    defined.ok("apt-get remove -y marchproxy")
    left = defined.ok(
        "ls -A /sys/fs/bpf /usr/lib/marchproxy 2>/dev/null; ls /var/lib/marchproxy /etc/marchproxy"
    )
    assert "marchproxy\n" not in left
    assert "marchproxy.db" in left
    assert "marchproxy.env" in left
    assert defined.ok("cat /proc/sys/net/ipv4/conf/inside0/forwarding") == "0"
    defined.ok(f"{INSTALL} && marchproxy service show web")
    named = "find / -xdev -iname '*marchproxy*'"
    assert "/usr/lib/marchproxy" in defined.ok(named).splitlines()
    defined.ok("mkdir -p /var/cache/marchproxy && systemctl enable marchproxy-tui@tty7")
    defined.ok("systemctl is-active marchproxy && apt-get purge -y marchproxy")
    assert defined.ok(named) == ""
    assert "marchproxy" not in defined.ok("ls -A /run /sys/fs/bpf")
    assert defined.ok("systemctl list-units --failed --no-legend --plain") == ""


def test_the_wizard_s_answers_are_piped_in_and_a_gateway_runs(rig: Rig, box: Box) -> None:
    box.ok(INSTALL)
    box.ok("echo 10.2.0.77 >/srv/bad.txt")
    answers = "printf '%s\\n' inside0 outside0 no /srv/bad.txt '' yes"
    box.ok(f"{answers} | SSH_CONNECTION='10.1.0.2 50000 10.1.0.1 2222' marchproxy init --wizard 2>/srv/said")
    said = box.ok("cat /srv/said")
    assert "starting marchproxy.service" in said
    assert "the gateway runs: kernel tier, revision 2" in said
    assert "MARCHPROXY_MANAGEMENT_PORTS=22,2222" in box.ok("cat /etc/marchproxy/marchproxy.env").splitlines()
    assert box.ok("systemctl is-active marchproxy") == "active"
    assert b"server" in rig.client.call(fetch, "10.2.0.2", 80)
    box.until('marchproxy flows --denied --output json | grep -q \'"verdict": "audit"\'')
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, "10.2.0.77", 80)
    assert box.run("marchproxy init --wizard --inside inside0 --yes").returncode == 4
    box.ok("marchproxy reset --stop --yes")
    assert box.ok("ls -A /var/lib/marchproxy /sys/fs/bpf/marchproxy 2>/dev/null || true").split() == [
        "/var/lib/marchproxy:"
    ]


def test_the_single_file_as_a_service(rig: Rig, box: Box, binary: Path, files: Path) -> None:
    """By the very lines of docs/INSTALL.md."""
    page = (ROOT / "docs" / "INSTALL.md").read_text()
    [recipe] = re.findall(r"^```sh\n(useradd .*?)^```", page, re.MULTILINE | re.DOTALL)
    source = files / "source"
    if not source.exists():
        shutil.copytree(ROOT / "systemd", source / "systemd")
        shutil.copy(binary, source)
    box.ok(f"cd /files/source && set -e\n{recipe}")
    box.ok("printf '%s\\n' inside0 outside0 no none '' yes | marchproxy init --wizard 2>/srv/said")
    assert "the gateway runs: kernel tier, revision 2" in box.ok("cat /srv/said")
    assert b"server" in rig.client.call(fetch, "10.2.0.2", 80)
    box.ok("marchproxy appliance set --audit off")
    with pytest.raises(ConnectionRefusedError):
        rig.client.call(fetch, "10.2.0.2", 80)
    assert box.ok("systemctl show --property=NRestarts --value marchproxy") == "0"


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


@pytest.mark.parametrize("box", SUITES[:1], indirect=True)
@pytest.mark.parametrize(
    ("without", "tier"),
    [
        ("umount /sys/fs/bpf", f"tier sockets: /run/marchproxy-bpf/v{bpf.ABI} is not on a BPF file system"),
        ("rm /usr/lib/*/libbpf.so.1*", "tier kernel: BPF is permitted"),
        (
            "rm -f /usr/lib/*/libbpf.so.1* /usr/lib/marchproxy/lib/fallback/*",
            "tier sockets: libbpf.so.1 cannot be loaded",
        ),
        (lacking("CAP_BPF"), "tier sockets: BPF cannot be used: not permitted: CAP_BPF missing"),
        (lacking("CAP_NET_ADMIN"), "tier sockets: "),
        (lacking("CAP_PERFMON"), "tier sockets: "),
        (lacking("CAP_NET_BIND_SERVICE"), "tier kernel: BPF is permitted"),
        (lacking("CAP_NET_RAW"), "tier kernel: BPF is permitted"),
    ],
    ids=["bpffs", "libbpf", "no-libbpf", "bpf", "net-admin", "perfmon", "bind", "raw"],
)
def test_what_is_missing_is_named_and_ends_in_no_loop(
    rig: Rig, installed: Box, without: str, tier: str
) -> None:
    installed.ok(without)
    installed.ok(DEFINE)
    assert installed.ok("marchproxy status | grep ^tier").startswith(tier)
    assert installed.ok("systemctl show --property=NRestarts --value marchproxy") == "0"
    # It goes on doing what it can.
    assert rig.client.call(ask_udp, VIP, 7007, b"hello") == b"hello"
