"""The passphrase of a backup: from a file, or from whoever sits at the terminal. Never from an argument."""

import getpass
from typing import Annotated

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import Declined, WrongUsage
from marchproxy.model.errors import InvalidValue

PassphraseOption = Annotated[
    str | None,
    typer.Option(
        "--passphrase-file", metavar="FILE", help="Its first line is the passphrase; asked otherwise"
    ),
]


def read_passphrase(environment: Environment, file: str | None, *, twice: bool) -> str:
    """The passphrase. `twice` asks for it again: a slip would make a backup that nobody can open."""
    if file is not None:
        try:
            with open(file, encoding="utf-8") as lines:
                return lines.readline().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise InvalidValue("passphrase_file", file, f"a file that can be read: {reason}") from None
    if not environment.interactive:
        raise WrongUsage("there is nobody to ask for a passphrase", hint="give --passphrase-file")
    passphrase = getpass.getpass("Passphrase: ", stream=environment.stderr)
    if twice and getpass.getpass("Again: ", stream=environment.stderr) != passphrase:
        raise Declined("the two are not the same: nothing was written")
    return passphrase
