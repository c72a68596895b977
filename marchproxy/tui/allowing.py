"""From one refusal to the services and mappings that would allow just that."""

from collections.abc import Callable
from datetime import datetime

from marchproxy.client import edits
from marchproxy.client.words import endpoint
from marchproxy.model.address import parse_ip, parse_prefix
from marchproxy.model.change import Kind
from marchproxy.model.names import DEFAULT_CLUSTER, cluster_of
from marchproxy.model.reason import Reason
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.observed import PROTOCOLS, Observation
from marchproxy.policy.propose import propose
from marchproxy.tui.words import Row

_ONE = {4: 32, 6: 128}
"""Only the client that was refused, and no network around it."""


def obstacle(row: Row) -> str:
    """Why a mapping would not help; empty: it would."""
    if row["protocol"] not in PROTOCOLS:
        return f"protocol {row['protocol']} cannot be allowed by a mapping"
    if row["mapping"]:
        return f"mapping {row['mapping']} denies this on purpose: change that one"
    if row["reason"] != Reason.NO_MAPPING.name:
        return f"{row['reason']}: a mapping would not help; w says more"
    return ""


def summary(row: Row) -> str:
    """Who wants to go where."""
    return f"{row['source']} to {endpoint(row, 'destination')} by {row['protocol']}"


def builder(row: Row) -> Callable[[Snapshot], Snapshot]:
    """What adds services and the mapping to the cluster of the source; to the default one for strangers."""
    seen = _observation(row)
    owner = cluster_of(seen.source_service) if seen.source_service else DEFAULT_CLUSTER

    def build(snapshot: Snapshot) -> Snapshot:
        proposed = propose([seen], edits.cluster_of(snapshot, owner), _ONE)
        for service in proposed.services:
            snapshot = edits.put(snapshot, Kind.SERVICE, owner, service)
        for mapping in proposed.mappings:
            snapshot = edits.put(snapshot, Kind.MAPPING, owner, mapping)
        return snapshot

    return build


def _observation(row: Row) -> Observation:
    instant = datetime.fromisoformat(row["time"]).timestamp()
    return Observation(
        parse_prefix(row["source"]),
        parse_ip(row["destination"]),
        row["protocol"],
        row["destination_port"] if row["protocol"] != "icmp" else 0,
        Reason[row["reason"]],
        source_service=row["source_service"],
        destination_service=row["destination_service"],
        name=row["name"],
        count=row["count"],
        first=instant,
        last=instant,
    )
