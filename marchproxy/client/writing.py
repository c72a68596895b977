"""One revision of a change, with what it brings along checked in the same transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from marchproxy.client.appliance import Appliance
from marchproxy.client.review import review
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.policy.plan import Finding
    from marchproxy.store.revision import Revision
    from marchproxy.store.store import Store


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a change."""

    revision: "Revision"
    changed: bool
    """False: it changed nothing, and `revision` is the one that was there."""
    warnings: "Sequence[Finding]"
    """What was written although it may not be what was meant."""


def make_revision(
    appliance: Appliance,
    store: "Store",
    message: str,
    build: Callable[[Snapshot], Snapshot],
    *,
    trial: int | None = None,
    contents: Sequence[bytes] = (),
) -> Made:
    """Make one revision of what `build` does to the snapshot. Raises `InvalidPolicy` and what `build` raises.

    With `trial` it goes back after so many seconds. `contents` are those of block lists that it brings.
    `build` runs inside the store's transaction, so what it checks still holds when its result is written.
    """
    changed = False
    warnings: list[Finding] = []

    def careful(snapshot: Snapshot) -> Snapshot:
        nonlocal changed
        wanted = build(snapshot)
        warnings.extend(review(snapshot, wanted, appliance.management_ports))
        changed = wanted != snapshot
        return wanted

    revision = store.replace(careful, message=message, trial=trial, contents=contents)
    return Made(revision, changed, warnings)
