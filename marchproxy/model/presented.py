"""A credential as a client presents it, before anybody has looked whether it is right."""

from dataclasses import dataclass, field

MAX_SECRET = 16_384
"""Characters; longer ones are refused unread. A JWT with many claims has some 4,000."""


@dataclass(frozen=True, slots=True)
class Presented:
    """What came with a request. The secret never appears in a `repr`, and so in no log."""

    secret: str = field(repr=False)
    """A token, or a JWT."""
    service: str | None = None
    """Plain or qualified name of the service that the client claims; None: the secret alone must say."""
