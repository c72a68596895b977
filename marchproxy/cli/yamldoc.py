"""YAML as far as configuration needs it: mappings, lists, text, whole numbers, true, false and null.

Built from libyaml's events and not with PyYAML's loaders. The fast one recurses in C and takes the process
down with a segmentation fault at a few ten thousand opening brackets; both expand aliases ("billion laughs"),
keep the last of two equal keys, and read `no`, `22:22` and unquoted instants as something else than was
written. Here all of that is either refused by line or stays text (YAML 1.2 core schema, without floating
point, which no field has).
"""

import re
from typing import Any

import yaml

from marchproxy.cli.errors import InvalidFile

MAX_DEPTH = 32
"""Our deepest document has five levels."""

_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_MISSING = object()


def read_yaml(text: str) -> Any:
    """The one document in `text`. Raises `InvalidFile` that names the line."""
    try:
        return _Builder().build(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidFile(f"line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InvalidFile(str(error).splitlines()[0]) from None


class _Builder:
    """Collects events into values. `_open` holds the mappings and lists that are not closed yet."""

    def __init__(self) -> None:
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[Any] = []
        """For each open mapping the key that waits for its value; `_MISSING` between pairs and in lists."""
        self._root: Any = _MISSING

    def build(self, text: str) -> Any:
        """Read all events; an empty text is null."""
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            mark = event.start_mark
            self._take(event, mark.line + 1 if mark else 1)
        return None if self._root is _MISSING else self._root

    def _take(self, event: yaml.Event, line: int) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise InvalidFile(f"line {line}: aliases and anchors are not read", hint="write the value out")
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise InvalidFile(f"line {line}: the tag {tag} is not read", hint="leave the tag out")
        match event:
            case yaml.ScalarEvent():
                self._add(_scalar(event), line)
            case yaml.MappingStartEvent():
                self._start({}, line)
            case yaml.SequenceStartEvent():
                self._start([], line)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._open.pop()
                self._keys.pop()
            case yaml.DocumentStartEvent() if self._root is not _MISSING:
                raise InvalidFile(f"line {line}: a second document begins", hint="make it a file of its own")

    def _start(self, container: dict[str, Any] | list[Any], line: int) -> None:
        if len(self._open) == MAX_DEPTH:
            raise InvalidFile(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        self._add(container, line)
        self._open.append(container)
        self._keys.append(_MISSING)

    def _add(self, value: Any, line: int) -> None:
        if not self._open:
            self._root = value
        elif isinstance(holder := self._open[-1], list):
            holder.append(value)
        elif self._keys[-1] is _MISSING:
            if not isinstance(value, str):
                raise InvalidFile(f"line {line}: a key is not text", hint="put it in quotes")
            if value in holder:
                raise InvalidFile(f"line {line}: the key {value!r} is given twice")
            self._keys[-1] = value
        else:
            holder[self._keys[-1]] = value
            self._keys[-1] = _MISSING


def _scalar(event: yaml.ScalarEvent) -> Any:
    value: str = event.value
    if not event.implicit[0] or event.tag == "!":
        return value
    if value in _WORDS:
        return _WORDS[value]
    return int(value) if _NUMBER.fullmatch(value) else value
