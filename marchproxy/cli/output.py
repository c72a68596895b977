"""Data on stdout: a table for people, JSON or YAML for programs. JSON keys are a contract with scripts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from marchproxy.cli.context import Environment
from marchproxy.cli.table import Columns, Row, draw
from marchproxy.client.words import cell


class Output(StrEnum):
    """What `--output` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def show_rows(environment: Environment, output: Output, rows: Sequence[Row], columns: Columns) -> None:
    """Print a list: an array of whole rows, or a table with a title line."""
    if output is not Output.TABLE:
        environment.stdout.write(serialise(rows, output))
        return
    title, *lines = draw(rows, columns, environment.width)
    show_lines(environment, [environment.colour(title, "bold"), *lines])


def show_one(environment: Environment, output: Output, document: Row) -> None:
    """Print one thing: an object, or a line for each field that says something."""
    if output is not Output.TABLE:
        environment.stdout.write(serialise(document, output))
        return
    fields = {
        name.replace("_", " "): value for name, value in document.items() if value not in (None, "", [])
    }
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        values = value if isinstance(value, list) else [_short(value)]
        labels = [name, *[""] * (len(values) - 1)]
        lines = (f"{label:<{width}}  {cell(item)}" for label, item in zip(labels, values, strict=True))
        show_lines(environment, lines)


def _short(value: Any) -> Any:
    """What is in PEM form says nothing to people."""
    pem = isinstance(value, str) and value.startswith("-----BEGIN ")
    return f"{value.count('-----BEGIN ')} in PEM form" if pem else value


def show_lines(environment: Environment, lines: Iterable[str]) -> None:
    """Print lines of text."""
    environment.stdout.writelines(f"{line}\n" for line in lines)


def tell_rest(environment: Environment, output: Output, shown: int, headers: Mapping[str, str]) -> None:
    """What matched and is not shown. A daemon of before does not say how many that are."""
    total = headers.get("x-marchproxy-total", "")
    more = int(total) - shown if total.isdigit() else 0
    if more > 0 and output is Output.TABLE:
        environment.note(f"these are {shown} of {total}: --limit shows more")


def serialise(data: Any, output: Output) -> str:
    """JSON or YAML text that ends in a newline."""
    if output is Output.YAML:
        return to_yaml(data)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def to_yaml(data: Any) -> str:
    """YAML in the order of the data, one entry a line."""
    import yaml

    text: str = yaml.dump(
        data, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    return text
