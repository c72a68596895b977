"""network: what is wrong around the appliance, each by itself."""

from dataclasses import replace
from typing import Any

import pytest

from marchproxy.dataplane.doctor import network
from marchproxy.dataplane.doctor.finding import Finding, Severity
from marchproxy.model.entities import Interface, Mode, Role
from tests.dataplane.doctor.patient import INTERFACES, SNAPSHOT, Patient, wrong
from tests.policy.build import service, snapshot


def only(findings: list[Finding]) -> Finding:
    (finding,) = wrong(findings)
    return finding


@pytest.mark.parametrize(
    ("change", "fix"),
    [({"up": False}, "ip link set in0 up"), ({"running": False}, "ip -statistics link show in0")],
)
def test_a_device_that_carries_nothing(patient: Patient, change: dict[str, Any], fix: str) -> None:
    patient.devices["in0"] = replace(patient.devices["in0"], **change)
    finding = only(list(network.interfaces(patient.case)))
    assert (finding.severity, finding.fix) == (Severity.ERROR, fix)


def test_a_device_that_is_not_there(patient: Patient) -> None:
    patient.snapshot = replace(SNAPSHOT, interfaces=(*INTERFACES, Interface("gone0", Role.INSIDE)))
    finding = only(list(network.interfaces(patient.case)))
    assert finding.message == "there is no device gone0"
    assert "marchproxy interface remove gone0" in finding.fix


def test_what_the_daemon_says_of_an_interface(patient: Patient) -> None:
    assert patient.status is not None
    patient.status["interfaces"][0]["problem"] = "no XDP here"
    assert only(list(network.interfaces(patient.case))).message == "in0: no XDP here"


def test_native_xdp_on_a_virtual_device_is_slow(patient: Patient) -> None:
    patient.snapshot = replace(SNAPSHOT, interfaces=(Interface("in0", Role.INSIDE, Mode.XDP),))
    assert not wrong(list(network.interfaces(patient.case)))
    patient.devices["in0"] = replace(patient.devices["in0"], driver="veth")
    finding = only(list(network.interfaces(patient.case)))
    assert (finding.severity, finding.fix) == (
        Severity.WARNING,
        "marchproxy interface set in0 --mode tc",
    )


def test_no_interface_at_all(patient: Patient) -> None:
    patient.snapshot = replace(SNAPSHOT, interfaces=())
    assert only(list(network.interfaces(patient.case))).severity is Severity.WARNING


def test_mtus_that_differ_and_one_too_small(patient: Patient) -> None:
    patient.devices["in0"] = replace(patient.devices["in0"], mtu=9000)
    finding = only(list(network.mtu(patient.case)))
    assert (finding.severity, finding.evidence) == (Severity.WARNING, "in0 9000, out0 1500")
    patient.devices["in0"] = replace(patient.devices["in0"], mtu=1000)
    assert only(list(network.mtu(patient.case))).severity is Severity.ERROR


def test_a_device_that_merges_what_it_receives(patient: Patient) -> None:
    assert list(network.offloads(patient.case)) == []
    patient.devices["out0"] = replace(patient.devices["out0"], lro=True)
    finding = only(list(network.offloads(patient.case)))
    assert finding.fix == "ethtool -K out0 lro off"


def test_a_default_route_of_either_family_is_a_way_out(patient: Patient) -> None:
    patient.remove("proc/net/route")
    assert only(list(network.routes(patient.case))).severity is Severity.WARNING
    words = ["0" * 32, "00", "0" * 32, "00", "fe80" + "0" * 28, "0", "0", "0", "0", "out0"]
    patient.write("proc/net/ipv6_route", " ".join(words) + "\n")
    (finding,) = network.routes(patient.case)
    assert finding.message == "there is a default route of IPv6"


def test_a_gateway_without_an_outside_needs_no_way_out(patient: Patient) -> None:
    patient.remove("proc/net/route")
    patient.snapshot = replace(SNAPSHOT, interfaces=(Interface("in0", Role.INSIDE),))
    assert list(network.routes(patient.case)) == []


def test_neighbours_that_fill_their_table(patient: Patient) -> None:
    patient.write("proc/net/arp", "IP address\n" + "10.0.0.1 0x1\n" * 900)
    finding = only(list(network.neighbours(patient.case)))
    assert (finding.evidence, finding.fix) == (
        "900 of 1024 IPv4 entries",
        "sysctl -w net.ipv4.neigh.default.gc_thresh3=4096",
    )


def test_ipv6_neighbours_that_fill_their_table(patient: Patient) -> None:
    patient.write("proc/net/stat/ndisc_cache", "entries  allocs\n00000384  0000002a\n")
    finding = only(list(network.neighbours(patient.case)))
    assert (finding.evidence, finding.fix) == (
        "900 of 1024 IPv6 entries",
        "sysctl -w net.ipv6.neigh.default.gc_thresh3=4096",
    )


def test_forwarding_that_somebody_switched_off(patient: Patient) -> None:
    patient.write("proc/sys/net/ipv4/conf/out0/forwarding", "0\n")
    finding = only(list(network.forwarding(patient.case)))
    assert (finding.severity, finding.fix) == (
        Severity.ERROR,
        "sysctl -w net/ipv4/conf/out0/forwarding=1",
    )
    patient.write("proc/sys/net/ipv4/conf/out0/forwarding", "1\n")
    patient.write("proc/sys/net/ipv6/conf/in0/forwarding", "0\n")
    finding = only(list(network.forwarding(patient.case)))
    assert (finding.severity, finding.evidence, finding.fix) == (
        Severity.ERROR,
        "net/ipv6/conf/in0/forwarding is 0",
        "sysctl -w net/ipv6/conf/in0/forwarding=1",
    )


def test_a_machine_without_ipv6_lacks_nothing(patient: Patient) -> None:
    for interface in INTERFACES:
        patient.remove(f"proc/sys/net/ipv6/conf/{interface.name}/forwarding")
    patient.remove("proc/sys/net/ipv6/neigh/default/gc_thresh3")
    patient.remove("proc/net/stat/ndisc_cache")
    assert not wrong(list(network.forwarding(patient.case)))
    assert [each.evidence for each in network.neighbours(patient.case)] == ["0 of 1024 IPv4 entries"]


def test_a_strict_check_with_two_ways_out(patient: Patient) -> None:
    patient.write("proc/sys/net/ipv4/conf/in0/rp_filter", "1\n")
    assert list(network.reverse_path(patient.case)) == []
    both = tuple(replace(each, role=Role.OUTSIDE) for each in INTERFACES)
    patient.snapshot = replace(SNAPSHOT, interfaces=both)
    finding = only(list(network.reverse_path(patient.case)))
    assert finding.fix == "sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.in0.rp_filter=2"
    patient.write("proc/sys/net/ipv4/conf/all/rp_filter", "2\n")
    assert not wrong(list(network.reverse_path(patient.case)))


def test_ports_of_the_host_among_those_of_flows(patient: Patient) -> None:
    patient.write("proc/sys/net/ipv4/ip_local_port_range", "1024\t60999\n")
    finding = only(list(network.ports(patient.case)))
    assert finding.fix == "sysctl -w net.ipv4.ip_local_reserved_ports=4096-32767"
    patient.write("proc/sys/net/ipv4/ip_local_reserved_ports", "80\n")
    assert only(list(network.ports(patient.case))).fix.endswith("=80,4096-32767")
    patient.write("proc/sys/net/ipv4/ip_local_reserved_ports", "80,4096-32767\n")
    assert not wrong(list(network.ports(patient.case)))


def test_names_that_do_not_resolve(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(network.names(patient.case)) == []
    patient.write("resolv.conf", "nameserver 192.0.2.53\n")
    monkeypatch.setattr(network, "RESOLV_CONF", patient.folder / "resolv.conf")
    patient.snapshot = snapshot(service("web", "www.example.com"))
    assert not wrong(list(network.names(patient.case)))
    assert patient.status is not None
    patient.status["host_names"] = [{"name": "www.example.com", "error": "SERVFAIL"}]
    finding = only(list(network.names(patient.case)))
    assert (finding.evidence, finding.fix) == ("SERVFAIL", "dig www.example.com @192.0.2.53")
    patient.remove("resolv.conf")
    fixes = [finding.fix for finding in wrong(list(network.names(patient.case)))]
    assert fixes == ["marchproxy appliance set --resolver ADDRESS", "dig www.example.com @127.0.0.1"]
