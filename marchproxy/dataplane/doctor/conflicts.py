"""Others who decide about the same packets."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marchproxy.dataplane.doctor.case import Case, read
from marchproxy.dataplane.doctor.finding import Finding, fine, warning

PATIENCE = 5.0
"""Seconds for nft to list its rules."""
_KUBE = ("KUBE-SERVICES", "KUBE-NODEPORTS", "nat-prerouting")

_SHOWN = 5
"""Rules that are named before the rest is only counted."""
_PASSES = {
    "prerouting": "comes in, before it is known whether it is for this host",
    "input": "comes to this host, clients of listeners too",
    "forward": "is forwarded where no program is attached, and on the sockets tier",
}
_DROPS = {
    "prerouting": "nftables drops what comes in unless a rule lets it pass: clients of listeners too",
    "input": "nftables drops what comes to this host unless a rule lets it in: clients of listeners too",
    "forward": "nftables drops what is forwarded: where no program is attached, and on the sockets tier",
}
_HOOKS = frozenset(_PASSES)
_DECIDES = frozenset({"drop", "reject", "dnat", "redirect", "tproxy"})

type Chain = Mapping[str, Any]
"""As nft describes it."""


def firewall(case: Case) -> Iterator[Finding]:
    """Flows that programs carry pass no netfilter; what the host's own sockets get, does."""
    legacy = read(case.proc / "net/ip_tables_names").split()
    if legacy:
        text = "iptables (legacy) has tables: what they drop of the appliance's own sockets, nobody counts"
        yield warning(text, ", ".join(legacy), "iptables-legacy --list --verbose --numeric")
    rules = list_rules()
    if rules is None:
        return
    passed = [each for each in rules.chains if each.get("hook") in _HOOKS]
    dropping = [each for each in passed if each.get("policy") == "drop"]
    for chain in dropping:
        name = _name(chain)
        yield warning(_DROPS[chain["hook"]], f"chain {name} has policy drop", f"nft list chain {name}")
    deciding = [(chain, found) for chain in passed if (found := rules.found(chain))]
    for chain, found in deciding:
        name = _name(chain)
        text = f"nftables rules {_listed(found)} some of what {_PASSES[chain['hook']]}"
        where = ", ".join(f"{each.chain} handle {each.handle} ({each.does})" for each in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        yield warning(text, f"chain {name}: {where}{more}", f"nft --handle list chain {name}")
    if not legacy and not dropping and not deciding:
        text = "no firewall drops or redirects what the appliance accepts"
        yield fine(text, f"{len(rules.chains)} nftables chains")


def _name(chain: Chain) -> str:
    return f"{chain['family']} {chain['table']} {chain['name']}"


def _listed(found: Sequence["Decides"]) -> str:
    return " and ".join(sorted({each.does for each in found}))


def kube_proxy(case: Case) -> Iterator[Finding]:
    """Rewrites destinations before we see them, or after."""
    found = [each for each in list_chains() or () if each["name"] in _KUBE]
    if found:
        names = ", ".join(sorted({f"{each['table']} {each['name']}" for each in found}))
        text = "kube-proxy rewrites addresses on this host: its services and ours must not share addresses"
        yield warning(text, names, "kubectl --namespace kube-system get configmap kube-proxy --output yaml")


def list_chains() -> Sequence[Chain] | None:
    """All chains of nftables, those of iptables-nft included; None where nobody can tell."""
    rules = list_rules()
    return None if rules is None else rules.chains


@dataclass(frozen=True, slots=True)
class Decides:
    """A rule that ends or diverts packets."""

    chain: str
    handle: int
    does: str
    """`drop`, `reject`, `dnat`, `redirect` or `tproxy`."""


class Rules:
    """What nftables has, as `nft --json list ruleset` describes it."""

    def __init__(self, chains: Sequence[Chain], rules: Sequence[Mapping[str, Any]]) -> None:
        self.chains = chains
        self._rules: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
        for rule in rules:
            self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)

    def found(self, base: Chain) -> Sequence[Decides]:
        """The rules that decide, of a chain and of those that it jumps to."""
        found: list[Decides] = []
        waiting, seen = [base["name"]], {base["name"]}
        while waiting:
            name = waiting.pop()
            for rule in self._rules.get((base["family"], base["table"], name), ()):
                for word, value in _statements(rule.get("expr", ())):
                    if word in _DECIDES:
                        found.append(Decides(name, rule.get("handle", 0), word))
                    elif word in ("jump", "goto") and value["target"] not in seen:
                        seen.add(value["target"])
                        waiting.append(value["target"])
        return found


def _statements(parts: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, wherever it stands: verdict maps have verdicts in them."""
    if isinstance(parts, list):
        for part in parts:
            yield from _statements(part)
    elif isinstance(parts, dict):
        for word, value in parts.items():
            # What came over from iptables and nftables has no words of its own for.
            if word == "xt" and isinstance(value, dict) and value.get("type") == "target":
                yield str(value.get("name", "")).lower(), value
            else:
                yield word, value
                yield from _statements(value)


def list_rules() -> Rules | None:
    """All of nftables but the elements of sets; None where nobody can tell."""
    command = shutil.which("nft")
    if command is None or os.geteuid():
        return None
    try:
        listed = subprocess.run(
            [command, "--json", "--terse", "list", "ruleset"],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        said = json.loads(listed.stdout)["nftables"]
        chains = [each["chain"] for each in said if "chain" in each]
        return Rules(chains, [each["rule"] for each in said if "rule" in each])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None
