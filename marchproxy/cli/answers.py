"""What the wizard wants to know, as flags and an answers file give it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from marchproxy.cli.context import Environment
from marchproxy.cli.files import read_document
from marchproxy.cli.questions import read_yes
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port

NONE = "none"
"""In the place of a list or file: there is none."""
BUILTIN = "builtin"
"""In the place of a file: the block list that MarchProxy brings."""


@dataclass(frozen=True, slots=True)
class Answers:
    """None: not answered."""

    inside: tuple[str, ...] | None = None
    """Devices towards clients."""
    outside: tuple[str, ...] | None = None
    """Devices towards servers and the internet; may be empty."""
    masquerade: bool | None = None
    block_list: str | None = None
    """`BUILTIN`, `NONE`, or a file."""
    management_ports: tuple[int, ...] | None = None
    start: bool | None = None

    def over(self, others: "Answers") -> "Answers":
        """These, and of the others what these leave open."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return Answers(
            **{name: getattr(others, name) if said is None else said for name, said in held.items()}
        )


def read_names(field: str, text: str) -> tuple[str, ...]:
    """Names with commas or blanks between them; `none` for no name at all."""
    names = tuple(dict.fromkeys(text.replace(",", " ").split()))
    return () if names == (NONE,) else names


def read_ports(field: str, text: str) -> tuple[int, ...]:
    """Ports with commas or blanks between them. Raises `InvalidValue`, for none at all, too."""
    ports = tuple(sorted({parse_port(word, field=field) for word in text.replace(",", " ").split()}))
    if not ports:
        raise InvalidValue(field, text, "TCP ports, 22 for one")
    return ports


def read_answers(environment: Environment, file: str) -> Answers:
    """The answers in a YAML or JSON file; `-` is stdin. Raises as `read_document`, and `InvalidValue`."""
    given: Mapping[str, Any] = read_document(environment, file)
    answers: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _READERS:
            raise InvalidValue("answer", name, f"one of {', '.join(_READERS)}", where=file)
        try:
            answers[name] = _READERS[name](name, _text(name, value))
        except InvalidValue as error:
            raise error.at(file) from None
    return Answers(**answers)


def _text(name: str, value: object) -> str:
    """A list as somebody would type it; an empty one is `none`."""
    if isinstance(value, list):
        if not all(isinstance(each, str | int) for each in value):
            raise InvalidValue(name, value, "a list of words")
        return " ".join(map(str, value)) or NONE
    if isinstance(value, str | int):
        return str(value).strip() or NONE
    raise InvalidValue(name, value, "a word, or a list of words")


def _as_it_is(field: str, text: str) -> str:
    return text


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    "inside": read_names,
    "outside": read_names,
    "masquerade": read_yes,
    "block_list": _as_it_is,
    "management_ports": read_ports,
    "start": read_yes,
}
