"""Devices, routes, settings and names: the network around the appliance."""

from collections.abc import Iterator

from marchproxy.dataplane.doctor.case import Case, read
from marchproxy.dataplane.doctor.device import look
from marchproxy.dataplane.doctor.finding import Finding, error, fine, warning
from marchproxy.dataplane.kernel.natports import EPHEMERAL, RESERVED, NatPorts, are_apart
from marchproxy.dataplane.names.system import RESOLV_CONF, read_resolv_conf
from marchproxy.model.entities import Interface, Mode, Role

NEARLY = 0.8
"""Of a table, from which on it is said to be nearly full."""


def interfaces(case: Case) -> Iterator[Finding]:
    """Whether what the operator named is there, up and attached."""
    attached = {row["name"]: row for row in case.status["interfaces"]} if case.status else {}
    for interface in case.interfaces:
        yield _interface(interface, attached.get(interface.name, {}).get("problem", ""))
    if case.snapshot and not case.interfaces and case.uses_bpf:
        fix = "marchproxy interface add NAME --role inside"
        text = "no interface is configured: nothing is attached, nothing is carried"
        yield warning(text, "marchproxy interface list is empty", fix)


def mtu(case: Case) -> Iterator[Finding]:
    """Packets that fit one interface and not another are answered, which some networks filter."""
    found = {each.name: look(each.name) for each in case.interfaces}
    sizes = {name: device.mtu for name, device in found.items() if device}
    evidence = ", ".join(f"{name} {size}" for name, size in sizes.items())
    small = {name: size for name, size in sizes.items() if size < 1280}
    if small:
        names = ", ".join(small)
        fix = " && ".join(f"ip link set {name} mtu 1500" for name in small)
        yield error(f"IPv6 needs 1280 bytes, and {names} has less", evidence, fix)
    elif len(set(sizes.values())) > 1:
        text = "MTUs differ: TCP is told by its segment size, others by ICMP, which nobody may filter"
        yield warning(text, evidence, "marchproxy doctor --path ADDRESS")
    elif sizes:
        yield fine("all interfaces have the same MTU", evidence)


def offloads(case: Case) -> Iterator[Finding]:
    """Large receive offload merges packets beyond what can be forwarded."""
    for interface in case.interfaces:
        device = look(interface.name)
        if device and device.lro:
            text = f"{interface.name} merges what it receives, which breaks forwarding"
            yield error(text, "large-receive-offload is on", f"ethtool -K {interface.name} lro off")


def routes(case: Case) -> Iterator[Finding]:
    """A way out."""
    if not any(interface.role is Role.OUTSIDE for interface in case.interfaces):
        return
    v4 = any(words[1] == "00000000" and words[7] == "00000000" for words in case.lines("net/route"))
    v6 = any(
        words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo"
        for words in case.lines("net/ipv6_route")
    )
    if v4 or v6:
        families = " and ".join(name for name, there in (("IPv4", v4), ("IPv6", v6)) if there)
        yield fine(f"there is a default route of {families}", "/proc/net/route, /proc/net/ipv6_route")
    else:
        text = "no default route: of what is outside, only networks with a route of their own are reached"
        yield warning(text, "/proc/net/route, /proc/net/ipv6_route", "ip route add default via ADDRESS")


def neighbours(case: Case) -> Iterator[Finding]:
    """The kernel forgets link addresses when its table is full: one of each IP version for the machine."""
    for version, used in ((4, _neighbours_v4(case)), (6, _neighbours_v6(case))):
        most = case.sysctl(f"net/ipv{version}/neigh/default/gc_thresh3")
        if not most.isdigit():
            continue
        evidence = f"{used} of {most} IPv{version} entries"
        if used >= NEARLY * int(most):
            fix = f"sysctl -w net.ipv{version}.neigh.default.gc_thresh3={4 * int(most)}"
            text = "the table of neighbours is nearly full: new hosts will not be reached"
            yield warning(text, evidence, fix)
        else:
            yield fine("there is room for neighbours", evidence)


def _neighbours_v4(case: Case) -> int:
    return max(0, sum(1 for _ in case.lines("net/arp")) - 1)


def _neighbours_v6(case: Case) -> int:
    """The kernel lists them by netlink alone; how many there are is the first number for any processor."""
    lines = list(case.lines("net/stat/ndisc_cache"))
    return int(lines[1][0], 16) if len(lines) > 1 and lines[1] else 0


def forwarding(case: Case) -> Iterator[Finding]:
    """The kernel tells the way out only where it would forward; the daemon sees to that."""
    if case.status is None or not case.uses_bpf:
        return
    names = [row["name"] for row in case.status["interfaces"] if row["attached"]]
    wrong = [
        (version, name)
        for version in (4, 6)
        for name in names
        if case.sysctl(f"net/ipv{version}/conf/{name}/forwarding") == "0"
    ]
    for version, name in wrong:
        # Names of interfaces may have dots in them.
        setting = f"net/ipv{version}/conf/{name}/forwarding"
        text = f"forwarding of IPv{version} was switched off on {name}: new flows find no way out"
        yield error(text, f"{setting} is 0", f"sysctl -w {setting}=1")
    if names and not wrong:
        yield fine("forwarding is on where programs are attached", ", ".join(names))


def reverse_path(case: Case) -> Iterator[Finding]:
    """With several ways out, the strict check of the kernel drops answers that come by another one."""
    outside = [each.name for each in case.interfaces if each.role is Role.OUTSIDE]
    if len(outside) < 2:
        return
    of_all = case.sysctl("net/ipv4/conf/all/rp_filter") or "0"
    strict = [name for name in outside if max(of_all, case.sysctl(f"net/ipv4/conf/{name}/rp_filter")) == "1"]
    if strict:
        text = f"several ways out, and the kernel drops what comes by the other one: {', '.join(strict)}"
        fix = "sysctl -w " + " ".join(f"net.ipv4.conf.{name}.rp_filter=2" for name in ("all", *strict))
        yield warning(text, "rp_filter is 1 (strict)", fix)
    else:
        yield fine("answers may come by any way", ", ".join(outside))


def ports(case: Case) -> Iterator[Finding]:
    """The ports of flows and those that the host gives to its own connections must be apart."""
    ephemeral, reserved, nat = case.sysctl(EPHEMERAL), case.sysctl(RESERVED), NatPorts()
    if not ephemeral or not case.uses_bpf:
        return
    evidence = f"flows {nat}, the host {'-'.join(ephemeral.split())}"
    if are_apart(nat, ephemeral, reserved):
        yield fine("the ports of flows and of the host are apart", evidence)
    else:
        wanted = ",".join(filter(None, (reserved, str(nat))))
        text = "the host's own connections take ports of flows"
        yield warning(text, evidence, f"sysctl -w net.ipv4.ip_local_reserved_ports={wanted}")


def names(case: Case) -> Iterator[Finding]:
    """Host names of services, and who is asked for them."""
    if not case.host_names:
        return
    configured = read_resolv_conf(read(RESOLV_CONF)).servers
    servers = case.resolvers or [str(server.address) for server in configured]
    asked = ", ".join(servers)
    if not read(RESOLV_CONF) and not case.resolvers:
        fix = "marchproxy appliance set --resolver ADDRESS"
        yield warning(
            "services have host names, and only this host itself is asked", f"no {RESOLV_CONF}", fix
        )
    failing = [row for row in case.status["host_names"] if row["error"]] if case.status else []
    for row in failing:
        fix = f"dig {row['name']}" + (f" @{servers[0]}" if servers else "")
        yield warning(f"{row['name']} does not resolve", row["error"], fix)
    if case.status and not failing:
        yield fine("all host names resolve", f"asked of {asked}")


def _interface(interface: Interface, problem: str) -> Finding:
    name = interface.name
    device = look(name)
    if device is None:
        fix = f"marchproxy interface remove {name}"
        return error(f"there is no device {name}", "in this network namespace", fix)
    if not device.up:
        return error(f"{name} is down", "IFF_UP is not set", f"ip link set {name} up")
    if not device.running:
        text = f"{name} has no carrier: a cable, or what is at its other end"
        return error(text, "IFF_RUNNING is not set", f"ip -statistics link show {name}")
    if problem:
        return error(f"{name}: {problem}", "the daemon says so", "marchproxy status")
    if interface.mode is Mode.XDP and device.driver == "veth":
        text = f"native XDP loses segmentation offload on {name}, and bulk is slow"
        return warning(text, "its driver is veth", f"marchproxy interface set {name} --mode tc")
    return fine(f"{name} is up", f"{interface.role}, driver {device.driver or 'unknown'}")
