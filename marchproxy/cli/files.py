"""Documents from files, as JSON values, after a look at size, encoding, depth and repeated keys."""

import json
from collections import Counter
from typing import Any

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import InvalidFile
from marchproxy.client.units import MAX_DIGITS
from marchproxy.model.documents import Document
from marchproxy.model.errors import NotFound, NotPermitted

MAX_BYTES = 64 * 1024 * 1024
"""Ten thousand services and as many mappings take about four."""


def read_document(environment: Environment, name: str) -> Document:
    """The object in the JSON or YAML file `name`; `-` is stdin.

    Raises `NotFound`, `NotPermitted`, or `InvalidFile` that names the file and, where there is one, the line.
    """
    text = _decode(read_bytes(environment, name), name)
    try:
        document = _parse(text)
    except InvalidFile as error:
        raise InvalidFile(f"{name}, {error.message}", hint=error.hint) from None
    except RecursionError:
        raise InvalidFile(f"{name}: nested too deeply") from None
    if not isinstance(document, dict):
        raise InvalidFile(f"{name} holds no object", hint="expected services and mappings at the top")
    return document


def read_bytes(environment: Environment, name: str) -> bytes:
    """The contents of a file; `-` is stdin. Raises `NotFound`, `NotPermitted` or `InvalidFile`."""
    try:
        if name == "-":
            data = environment.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound("file", name) from None
    except PermissionError:
        raise NotPermitted(f"{name} may not be read", hint="run this as a user who may") from None
    except OSError as error:
        raise InvalidFile(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidFile(f"{name!r} is not the name of a file: {error}") from None
    if len(data) > MAX_BYTES:
        raise InvalidFile(f"{name} has more than {MAX_BYTES // 1024 // 1024} MB")
    return data


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidFile(f"{name}, line {line}: not UTF-8 text") from None


def _parse(text: str) -> Any:
    """JSON where it looks like JSON, else YAML; `{a: 1}` of YAML looks like it and gets a second try."""
    if not text.lstrip().startswith(("{", "[")):
        return _yaml(text)
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        try:
            return _yaml(text)
        except InvalidFile:
            raise InvalidFile(f"line {error.lineno}: {error.msg}") from None


def _yaml(text: str) -> Any:
    from marchproxy.cli.yamldoc import read_yaml

    return read_yaml(text)


def _once(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise InvalidFile(f"the object {document.get('name', '')!r}: the key {twice!r} is given twice")
    return document


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise InvalidFile(f"a number of {len(text)} digits is more than any field takes")
    return int(text)


def _no_constant(text: str) -> Any:
    raise InvalidFile(f"{text} is not a number that any field takes")
