"""Which running flows a change would end: asked of the daemon, which alone knows them."""

from collections.abc import Sequence
from typing import Any

from marchproxy.client.changes import row
from marchproxy.client.control import Control
from marchproxy.model.change import Change


def foresee(control: Control, sha256: str, changes: Sequence[Change]) -> Any:
    """The daemon's answer (`POST /v1/preview`); `sha256` names the snapshot that the changes start from.

    Raises what `Control` does, `Refused` where the daemon carries out another snapshot.
    """
    if not changes:
        return {"cut": 0, "looked_at": 0, "complete": True, "unresolved": [], "flows": []}
    return control.post("/v1/preview", {"sha256": sha256, "changes": [row(change) for change in changes]})
