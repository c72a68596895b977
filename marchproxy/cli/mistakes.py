"""Mistakes that a change would bring in, found before it is written."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from marchproxy.cli.errors import InvalidPolicy
from marchproxy.model.change import Change, Kind, diff
from marchproxy.model.names import COLLECTION_PREFIX
from marchproxy.model.snapshot import Snapshot

_SHOWN = 5


def refuse_mistakes(before: Snapshot, after: Snapshot) -> None:
    """Raise `InvalidPolicy` where `after` has an error that `before` had not, and what the store would raise.

    An error that is there already does not keep anyone from changing something else. Only the mappings that
    the change touches are compiled: with ten thousand of them, `service set` stays quick.
    """
    from marchproxy.store.integrity import check_references

    check_references(before, after)
    changes = diff(before, after)
    known = _errors(before, changes)
    found = [error for error in _errors(after, changes) if error not in known]
    if found:
        more = f" (and {len(found) - _SHOWN} more mistakes)" if len(found) > _SHOWN else ""
        hint = next((hint for _, hint in found if hint), "")
        raise InvalidPolicy("; ".join(message for message, _ in found[:_SHOWN]) + more, hint=hint)


def _errors(snapshot: Snapshot, changes: Iterable[Change]) -> list[tuple[str, str]]:
    """Message and hint of each error among the mappings that the changes touch."""
    from marchproxy.policy.compile import compile_plan
    from marchproxy.policy.plan import Severity

    plan = compile_plan(_touched(snapshot, changes), now=datetime.now(UTC)).plan
    return [
        (f"{finding.subject}: {finding.message}", finding.hint)
        for finding in plan.findings
        if finding.severity is Severity.ERROR
    ]


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
                or not references.get(cluster.name, set()).isdisjoint(
                    (*mapping.sources, *mapping.destinations)
                )
            ),
        )
        for cluster in snapshot.clusters
    )
    return replace(snapshot, clusters=clusters)
