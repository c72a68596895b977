"""All checks, by name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from marchproxy.dataplane.doctor import conflicts, installation, machine, network, path
from marchproxy.dataplane.doctor.case import Case
from marchproxy.dataplane.doctor.finding import Finding, Severity

type Check = Callable[[Case], Iterator[Finding]]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "daemon": installation.daemon,
        "store": installation.store,
        "permissions": installation.permissions,
        "certificates": installation.certificates,
        "pins": installation.pins,
        "kernel": machine.kernel,
        "capabilities": machine.capabilities,
        "btf": machine.btf,
        "bpffs": machine.bpffs,
        "jit": machine.jit,
        "files": machine.files,
        "clock": machine.clock,
        "disk": machine.disk,
        "interfaces": network.interfaces,
        "mtu": network.mtu,
        "offloads": network.offloads,
        "routes": network.routes,
        "neighbours": network.neighbours,
        "forwarding": network.forwarding,
        "reverse-path": network.reverse_path,
        "ports": network.ports,
        "names": network.names,
        "path": path.path,
        "firewall": conflicts.firewall,
        "kube-proxy": conflicts.kube_proxy,
    }
)
"""By the name that findings carry."""


def examine(case: Case) -> Iterator[Finding]:
    """What every check says; one that finds nothing wrong says so."""
    for name, check in CHECKS.items():
        try:
            for finding in check(case):
                yield replace(finding, check=name)
        except (OSError, ValueError, LookupError) as error:
            text = f"{error.filename or ''}: {error.strerror}" if isinstance(error, OSError) else repr(error)
            text = text.removeprefix(": ")
            yield Finding(Severity.WARNING, "this could not be looked at", text, check=name)
