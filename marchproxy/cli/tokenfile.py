"""A credential out of a file or the environment: never out of an argument, which everybody could read."""

from pathlib import Path

from marchproxy.cli.context import Environment
from marchproxy.model.errors import InvalidValue

TOKEN_VARIABLE = "MARCHPROXY_TOKEN"  # noqa: S105  (where it is, and not what)


def read_token(environment: Environment, file: str | None) -> str:
    """What the file holds, or else the environment; empty: there is none.

    Raises `InvalidValue` for a file that cannot be read and what can be no token, without repeating it.
    """
    if file is not None:
        try:
            text = Path(file).expanduser().read_text(encoding="ascii").strip()
        except UnicodeDecodeError:
            raise InvalidValue("token", "…", "printable ASCII without spaces") from None
        except OSError as error:
            raise InvalidValue("token_file", file, f"a file that can be read: {error.strerror}") from None
    else:
        text = environment.variables.get(TOKEN_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in text):
        raise InvalidValue("token", "…", "printable ASCII without spaces")
    return text
