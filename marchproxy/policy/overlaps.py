"""Services that share addresses: what one is allowed or denied, the other is too."""

from collections.abc import Iterator

from marchproxy.model.names import cluster_of
from marchproxy.policy.plan import Finding, Plan, Severity
from marchproxy.policy.sources import SourceIndex
from marchproxy.policy.wording import listed


def overlaps(plan: Plan) -> Iterator[Finding]:
    """One finding for each cluster with services that overlap, as far as rules look at their addresses."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    index = SourceIndex(plan.sources)
    for name, prefixes in plan.sources.items():
        cluster = cluster_of(name)
        for prefix in prefixes:
            for holder in sorted(index.holders(prefix.network_address, prefix.prefixlen)):
                # Equal prefixes are found from both sides.
                known = (holder, name) in found.get(cluster, ())
                if holder != name and cluster_of(holder) == cluster and not known:
                    found.setdefault(cluster, {}).setdefault((name, holder), str(prefix))
    for cluster, pairs in sorted(found.items()):
        shared = listed(f"{name} with {holder} ({prefix})" for (name, holder), prefix in pairs.items())
        yield Finding(
            Severity.WARNING,
            f"services of cluster {cluster}",
            f"share addresses: {shared}",
            "a mapping for one of them is also for those addresses of the other",
        )
