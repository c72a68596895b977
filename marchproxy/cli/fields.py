"""Flags that carry an entity's fields: one table per noun says which flag is which field of the document.

`add` and `set` of a noun share the table, so that neither can forget a field. Values stay text: `model` reads
them, and a flag fails with the same sentence and exit code as a file. Typer itself refuses only what is wrong
with the command line.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperOption

from marchproxy.cli.errors import WrongUsage
from marchproxy.client.units import MAX_DIGITS, parse_duration
from marchproxy.model.errors import InvalidValue

_GIVEN = "marchproxy.fields"
"""Where a context keeps the fields that its command line named."""


@dataclass(frozen=True, slots=True)
class Field:
    """A flag, and the field of the document that it sets."""

    name: str
    """Of the field, as in the entity and in files."""
    flag: str
    metavar: str
    help: str
    read: Callable[[str], Any] = str
    """From the text of the flag to the document's value."""
    many: bool = False
    """Whether the flag repeats, and takes comma lists; the field is a list."""
    whole: bool = False
    """Whether each text is one entry, commas and all."""
    suggest: Callable[[typer.Context, str], list[str]] | None = None
    parts: Callable[[list[Any]], dict[str, Any]] | None = None
    """From the entries to several fields of the document, `name` among them."""

    def option(self, *, required: bool) -> TyperOption:
        """The flag, as Typer knows it."""
        suggest = self.suggest
        return TyperOption(
            param_decls=[self.name, self.flag],
            metavar=self.metavar,
            help=self.help,
            required=required,
            multiple=self.many,
            expose_value=False,
            callback=self._keep,
            autocompletion=suggest and (lambda context, args, incomplete: suggest(context, incomplete)),
        )

    def _keep(self, context: Any, parameter: Any, value: Any) -> None:
        if value is None or value == ():
            return
        try:
            read = self.split(value) if self.many else self.read(value)
        except InvalidValue as error:
            raise InvalidValue(self.name, error.value, error.expected) from None
        fields = {self.name: read} if self.parts is None else self.parts(read)
        context.meta.setdefault(_GIVEN, {}).update(fields)

    def split(self, values: Sequence[str]) -> list[Any]:
        """Entries of repeated flags and comma lists: `--tag a,b --tag c` is three, `--tag ''` none."""
        if self.whole:
            return [self.read(value) for value in values if value.strip()]
        return [self.read(part.strip()) for value in values if value.strip() for part in value.split(",")]


@dataclass(frozen=True, slots=True)
class Switch:
    """A flag with a negative form, and the true-or-false field that it sets."""

    name: str
    flag: str
    help: str

    def option(self, *, required: bool) -> TyperOption:
        """The flag, as Typer knows it."""
        return TyperOption(
            param_decls=[self.name, f"--{self.flag}/--no-{self.flag}"],
            help=self.help,
            required=required,
            is_flag=True,
            default=None,
            expose_value=False,
            callback=self._keep,
        )

    def _keep(self, context: Any, parameter: Any, value: bool | None) -> None:
        if value is not None:
            context.meta.setdefault(_GIVEN, {})[self.name] = value


@dataclass(frozen=True, slots=True)
class Clear:
    """A flag without a value that empties a list: `--no-drain`."""

    name: str
    flag: str
    help: str

    def option(self, *, required: bool) -> TyperOption:
        """The flag, as Typer knows it."""
        return TyperOption(
            param_decls=[f"no_{self.name}", self.flag],
            help=self.help,
            required=required,
            is_flag=True,
            default=False,
            show_default=False,
            expose_value=False,
            callback=self._keep,
        )

    def _keep(self, context: Any, parameter: Any, value: bool) -> None:
        if value:
            fields = context.meta.setdefault(_GIVEN, {})
            if fields.get(self.name):
                raise WrongUsage(f"{self.flag} contradicts the flag that sets what it clears")
            fields[self.name] = []


type Fields = Sequence[Field | Switch | Clear]


def number(text: str) -> int | str:
    """A whole number where the text is one; other text stays for the model to refuse."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else text


_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def amount(text: str) -> int | str:
    """A whole number, or one of thousands, millions and so on: `500k`, `10M`, `1.5G`; other text stays."""
    plain = text.strip().lower()
    digits, scale = (plain[:-1], plain[-1]) if plain[-1:].isalpha() else (plain, "")
    whole, point, part = digits.partition(".")
    readable = (whole + part).isascii() and (whole + part).isdigit() and len(digits) < 20 and scale in _SCALES
    if not readable or (point and not (whole and part)):
        return text
    found, rest = divmod(int(whole + part) * _SCALES[scale], 10 ** len(part))
    return text if rest else found


def shares(entries: list[str]) -> dict[str, list[str]]:
    """Destinations, and what `shop=90` says about theirs."""
    names = [entry.partition("=")[0] for entry in entries]
    return {"destinations": names, "weights": [entry for entry in entries if "=" in entry]}


def on_off(text: str) -> bool | str:
    """True for `on`, false for `off`; an empty text stays, and means the default."""
    words: dict[str, bool | str] = {"on": True, "off": False, "": ""}
    if text.strip().lower() not in words:
        raise InvalidValue("flag", text, "on or off")
    return words[text.strip().lower()]


def seconds(text: str) -> int | str:
    """A duration in whole seconds, such as `30s`, `10m`, `2h`, `7d` or `30`; an empty text stays."""
    return parse_duration(text) if text.strip() else ""


def grace(text: str) -> str:
    """`grace:10m` or `grace 10m` in seconds, `grace:600`; other text stays for the model."""
    kind, found, time = text.strip().replace(" ", ":", 1).partition(":")
    return f"{kind}:{parse_duration(time)}" if found and kind.lower() == "grace" else text


def given(context: typer.Context) -> dict[str, Any]:
    """The fields that the command line named; raises `WrongUsage` where there are none."""
    fields: dict[str, Any] = context.meta.get(_GIVEN, {})
    if not fields:
        raise WrongUsage("nothing to change", hint=f"{context.command_path} --help lists what can be")
    return fields


def amend(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The document with `changes`; an empty text or list returns a field to its default: absent."""
    kept = {field: value for field, value in document.items() if field not in changes}
    return kept | {field: value for field, value in changes.items() if value not in ("", [])}
