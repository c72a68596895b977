"""A machine made of files, on which everything is fine until a test says otherwise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from marchproxy import bpf
from marchproxy.dataplane.doctor.case import Case
from marchproxy.dataplane.doctor.device import Device
from marchproxy.dataplane.doctor.finding import Finding, Severity
from marchproxy.model.entities import Interface, Role
from marchproxy.model.snapshot import Snapshot

INTERFACES = (Interface("in0", Role.INSIDE), Interface("out0", Role.OUTSIDE))
SNAPSHOT = replace(Snapshot(), interfaces=INTERFACES)
_ROUTES = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"


class Patient:
    """Its files can be written over; `case` is what the checks get."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshot: Snapshot | None = SNAPSHOT
        self.status: dict[str, Any] | None = {
            "pid": 77,
            "version": "1.2.3",
            "problems": [],
            "revision": {"number": 1, "sha256": SNAPSHOT.sha256()},
            "tier": {"name": "kernel", "reason": ""},
            "interfaces": [{"name": each.name, "attached": "tc", "problem": ""} for each in INTERFACES],
            "host_names": [],
        }
        self.devices = {each.name: Device(True, True, 1500, "ixgbe", False) for each in INTERFACES}
        for interface in INTERFACES:
            self.write(f"proc/sys/net/ipv4/conf/{interface.name}/forwarding", "1\n")
            self.write(f"proc/sys/net/ipv6/conf/{interface.name}/forwarding", "1\n")
            self.write(f"proc/sys/net/ipv4/conf/{interface.name}/rp_filter", "0\n")
        self.write("proc/sys/net/ipv4/conf/all/rp_filter", "0\n")
        self.write("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n")
        self.write("proc/sys/net/ipv4/ip_local_reserved_ports", "\n")
        self.write("proc/sys/net/ipv4/neigh/default/gc_thresh3", "1024\n")
        self.write("proc/sys/net/ipv6/neigh/default/gc_thresh3", "1024\n")
        self.write("proc/net/stat/ndisc_cache", "entries  allocs\n00000003  0000002a\n00000003  0000001c\n")
        self.write("proc/77/status", "Name:\tmarchproxy\nCapEff:\t000000c000003400\n")
        self.write("proc/sys/net/core/bpf_jit_enable", "1\n")
        self.write("proc/net/arp", "IP address HW type Flags HW address Mask Device\n")
        self.write("proc/net/route", f"{_ROUTES}out0 00000000 0102030A 0003 0 0 0 00000000 0 0 0\n")
        self.write(
            "proc/77/limits", "Limit Soft Hard Units\nMax open files            65536    65536    files\n"
        )
        self.write("proc/self/mounts", f"bpf {folder}/bpf bpf rw 0 0\n")
        self.write("sys/kernel/btf/vmlinux", "")
        self.write("state/marchproxy.db", "")
        self.write("state/secret.key", "")
        self.write("run/control.sock", "")
        (folder / f"bpf/marchproxy/v{bpf.ABI}").mkdir(parents=True)
        for path in ("state/marchproxy.db", "state/secret.key", "run/control.sock"):
            (folder / path).chmod(0o600)

    def write(self, name: str, text: str) -> None:
        """A file of the machine's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def remove(self, name: str) -> None:
        """It has no such file."""
        (self.folder / name).unlink()

    @property
    def case(self) -> Case:
        """As the command would see it."""
        return Case(
            snapshot=self.snapshot,
            status=self.status,
            store_file=self.folder / "state/marchproxy.db",
            runtime=self.folder / "run",
            bpffs=self.folder / "bpf/marchproxy",
            proc=self.folder / "proc",
            sys=self.folder / "sys",
        )


def wrong(findings: list[Finding]) -> list[Finding]:
    """What is not fine."""
    return [finding for finding in findings if finding.severity is not Severity.OK]
