"""Others who decide about the same packets."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marchproxy.dataplane.doctor.case import Case, read
from marchproxy.dataplane.doctor.finding import Finding, fine, warning

PATIENCE = 5.0
"""Seconds for nft to list its chains."""
_KUBE = ("KUBE-SERVICES", "KUBE-NODEPORTS", "nat-prerouting")

type Chain = Mapping[str, Any]
"""As `nft --json list chains` describes it."""


def firewall(case: Case) -> Iterator[Finding]:
    """Flows that programs carry pass no netfilter; what the host's own sockets get, does."""
    legacy = read(case.proc / "net/ip_tables_names").split()
    if legacy:
        text = "iptables (legacy) has tables: what they drop of the appliance's own sockets, nobody counts"
        yield warning(text, ", ".join(legacy), "iptables-legacy --list --verbose --numeric")
    chains = list_chains()
    if chains is None:
        return
    dropping = [each for each in chains if each.get("policy") == "drop"]
    for chain in dropping:
        hook = chain.get("hook", "")
        if hook == "input":
            text = "nftables drops what comes to this host unless a rule lets it in: clients of listeners too"
        elif hook == "forward":
            text = "nftables drops what is forwarded: where no program is attached, and on the sockets tier"
        else:
            continue
        name = f"{chain['family']} {chain['table']} {chain['name']}"
        yield warning(text, f"chain {name} has policy drop", f"nft list chain {name}")
    if not legacy and not any(each.get("hook") in ("input", "forward") for each in dropping):
        yield fine(
            "no firewall drops by default what the appliance accepts", f"{len(chains)} nftables chains"
        )


def kube_proxy(case: Case) -> Iterator[Finding]:
    """Rewrites destinations before we see them, or after."""
    found = [each for each in list_chains() or () if each["name"] in _KUBE]
    if found:
        names = ", ".join(sorted({f"{each['table']} {each['name']}" for each in found}))
        text = "kube-proxy rewrites addresses on this host: its services and ours must not share addresses"
        yield warning(text, names, "kubectl --namespace kube-system get configmap kube-proxy --output yaml")


def list_chains() -> Sequence[Chain] | None:
    """All chains of nftables, those of iptables-nft included; None where nobody can tell."""
    command = shutil.which("nft")
    if command is None or os.geteuid():
        return None
    try:
        listed = subprocess.run(
            [command, "--json", "list", "chains"], capture_output=True, timeout=PATIENCE, check=True
        )
        return [each["chain"] for each in json.loads(listed.stdout)["nftables"] if "chain" in each]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None
