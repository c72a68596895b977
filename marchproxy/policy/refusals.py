"""Why a mapping refuses all that it matches, where it does."""

from dataclasses import dataclass

from marchproxy.model.entities import Action, Mapping
from marchproxy.model.reason import Reason

SHOWN = 8
"""Services that a finding spells out before it only counts the rest."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why everything that a mapping matches is refused."""

    reason: Reason
    surprise: str = ""
    """What to tell the operator, who meant something else."""


def refusal_of(mapping: Mapping) -> Refusal | None:
    """What the mapping itself says, whatever its destinations want.

    A condition that cannot be tested here (host, path, TLS name) refuses too: leaving it out would let
    through, or have a lower mapping let through, what the operator meant to hold back.
    """
    conditions = [
        what
        for what, wanted in (
            ("host", mapping.host is not None),
            ("path prefix", mapping.path_prefix is not None),
            ("TLS name", mapping.sni),
        )
        if wanted
    ]
    if conditions:
        what = " and ".join(conditions)
        return Refusal(
            Reason.NOT_CARRIED, f"looks at the {what}, which is not carried in this version: denied"
        )
    if mapping.action is Action.DENY:
        return Refusal(Reason.DENY_MAPPING)
    return credential_wanted() if mapping.auth_required else None


def credential_wanted(*services: str) -> Refusal:
    """Clients would have to present a credential, for these services if there are any."""
    more = f" and {len(services) - SHOWN} more" if len(services) > SHOWN else ""
    who = f" for {', '.join(services[:SHOWN])}{more}" if services else ""
    return Refusal(
        Reason.AUTH_MISSING, f"wants a credential{who}, which is not carried in this version: denied"
    )
