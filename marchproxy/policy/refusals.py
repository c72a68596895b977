"""Why a mapping refuses all that it matches, where it does."""

from dataclasses import dataclass

from marchproxy.model.entities import Action, Mapping
from marchproxy.model.reason import Reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why everything that a mapping matches is refused."""

    reason: Reason
    surprise: str = ""
    """What to tell the operator, who meant something else."""
    hint: str = ""
    credentials: tuple[str, ...] = ()
    """Qualified names of services whose credential opens it all the same."""


def refusal_of(mapping: Mapping) -> Refusal | None:
    """What the mapping itself says, whatever its destinations want.

    Hosts and paths are those of HTTP requests, which are read at listeners only. A condition that cannot be
    tested refuses too: leaving it out would let through, or have a lower
    mapping let through, what the operator meant to hold back. So a mapping that denies some TLS names denies
    all that it matches: the name comes after the decision.
    """
    unheard = mapping.listen is None or mapping.sni
    conditions = [
        what
        for what, wanted in (
            *((what, unheard) for what in mapping.reads_requests),
            ("TLS name", mapping.sni and mapping.action is Action.DENY),
        )
        if wanted
    ]
    if conditions:
        what = " and ".join(conditions)
        return Refusal(
            Reason.NOT_CARRIED,
            f"looks at the {what}, which traffic that passes does not show: denied",
            "have HTTP read: marchproxy mapping set NAME --listen ADDR:PORT, without --sni"
            if unheard
            else "",
        )
    if mapping.action is Action.DENY:
        return Refusal(Reason.DENY_MAPPING)
    return None


def credential_wanted(services: tuple[str, ...]) -> Refusal:
    """Clients have to present a credential of one of these services."""
    if services:
        return Refusal(Reason.AUTH_MISSING, credentials=services)
    return Refusal(
        Reason.AUTH_MISSING,
        "wants a credential, and none of its services has any: denied",
        "give one of them a credential: marchproxy service set NAME --auth token",
    )
