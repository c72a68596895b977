"""Fields that hold certificates, which flags name as files."""

from collections.abc import Iterable

import typer

from marchproxy.cli.fields import given
from marchproxy.cli.files import read_bytes
from marchproxy.cli.framework import environment_of


def read(context: typer.Context, names: Iterable[str]) -> None:
    """Put what the files hold in the place of their names. Raises as `read_bytes`."""
    changes = given(context)
    for name in names:
        if changes.get(name):
            changes[name] = read_bytes(environment_of(context), changes[name]).decode("ascii", "replace")
