"""Mistakes that a change would bring in, found before it is written."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from marchproxy.client.errors import InvalidPolicy
from marchproxy.model.address import HostName
from marchproxy.model.change import Change, Kind, diff
from marchproxy.model.management import MANAGEMENT_PORTS
from marchproxy.model.names import COLLECTION_PREFIX
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.policy.plan import Finding

_SHOWN = 5
_SOMEWHERE = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
"""What host names resolve to here: whether they do is for the daemon to find out."""


def review(
    before: Snapshot, after: Snapshot, management: frozenset[int] = MANAGEMENT_PORTS
) -> list["Finding"]:
    """The warnings that `after` has and `before` had not. `management`: ports that no mapping may take over.

    Raises `InvalidPolicy` where there are errors of that kind, and what the store would raise. An error that
    is there already does not keep anyone from changing something else. Only the mappings that the change
    touches are compiled: with ten thousand of them, `service set` stays quick.
    """
    from marchproxy.policy.plan import Severity
    from marchproxy.store.integrity import check_references

    check_references(before, after)
    changes = diff(before, after)
    known = _findings(before, changes, management)
    found = [finding for finding in _findings(after, changes, management) if finding not in known]
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - _SHOWN} more mistakes)" if len(errors) > _SHOWN else ""
        text = "; ".join(f"{error.subject}: {error.message}" for error in errors[:_SHOWN])
        raise InvalidPolicy(text + more, hint=next((error.hint for error in errors if error.hint), ""))
    return found


def _findings(snapshot: Snapshot, changes: Sequence[Change], management: frozenset[int]) -> list["Finding"]:
    """What there is to say about the services, and about the mappings that the changes touch."""
    from marchproxy.policy.check import expired
    from marchproxy.policy.compile import compile_plan

    touched = _touched(snapshot, changes)
    names = dict.fromkeys(_host_names(snapshot), _SOMEWHERE)
    compiled = compile_plan(touched, names=names, management=management, now=datetime.now(UTC))
    found = (*compiled.plan.findings, *expired(touched, compiled))
    return [finding for finding in found if finding.subject.startswith(("mapping ", "service "))]


def _host_names(snapshot: Snapshot) -> Iterator[str]:
    services = (service for cluster in snapshot.clusters for service in cluster.services)
    addresses = (address for service in services for address in service.addresses)
    yield from (address.name for address in addresses if isinstance(address, HostName))


def _touched(snapshot: Snapshot, changes: Iterable[Change]) -> Snapshot:
    """The snapshot with only the mappings that a change is about, itself or through a service."""
    mappings: dict[str, set[str]] = {}
    references: dict[str, set[str]] = {}
    for change in changes:
        if change.kind is Kind.MAPPING:
            mappings.setdefault(change.cluster, set()).add(change.name)
        elif change.kind is Kind.SERVICE:
            documents = (change.before or {}, change.after or {})
            collections = {
                COLLECTION_PREFIX + item["collection"] for item in documents if "collection" in item
            }
            references.setdefault(change.cluster, set()).update({change.name}, collections)
    clusters = tuple(
        replace(
            cluster,
            mappings=tuple(
                mapping
                for mapping in cluster.mappings
                if mapping.name in mappings.get(cluster.name, ())
                or not references.get(cluster.name, set()).isdisjoint(mapping.references)
            ),
        )
        for cluster in snapshot.clusters
    )
    return replace(snapshot, clusters=clusters)
