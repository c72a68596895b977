"""How many examples a property is tried with: few in every run, more where somebody asks for them."""

import os

from hypothesis import settings

MORE = max(1, int(os.environ.get("MARCHPROXY_EXAMPLES", "1")))
"""Times as many as usual."""


def examples(count: int, **others: int) -> settings:
    """`count` of them, or a multiple; `others` are hypothesis' own settings."""
    return settings(max_examples=count * MORE, **others)  # type: ignore[arg-type]
