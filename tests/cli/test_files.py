"""Files as they come."""

import json
import os
from typing import Any

import pytest

from marchproxy.cli import files
from marchproxy.cli.errors import InvalidFile
from marchproxy.cli.files import read_document
from marchproxy.model.errors import NotFound, NotPermitted
from tests.cli.console import Console


@pytest.mark.parametrize(
    ("content", "document"),
    [
        ('{"a": 1}', {"a": 1}),
        ('\n  {"a": [1, {"b": null}]}\n', {"a": [1, {"b": None}]}),
        ("a: 1\n", {"a": 1}),
        ("{a: 1, b: [c]}", {"a": 1, "b": ["c"]}),
        ("\ufeffa: ü\n", {"a": "ü"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
    ],
)
def test_json_and_yaml_whatever_the_file_is_called(console: Console, content: str, document: Any) -> None:
    assert read_document(console.environment(), console.write("site.conf", content)) == document
    assert read_document(console.environment(stdin=content.encode()), "-") == document


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no object"),
        ("[]", "holds no object"),
        ("just text", "holds no object"),
        ('{"a": 1', "line 1: "),
        ('{"a": 1}\nx', "line 2: "),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ('{"services": [{"name": "web", "port": 1, "port": 2}]}', "'web': the key 'port'"),
        ("{" + "".join(f'"k{n}": 1,' for n in range(100_000)) + '"k99999": 2}', "'k99999' is given twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("a: [" * 100_000, "line 1: nested deeper"),
        ('{"a": ' + "1" * 5000 + "}", "a number of 5000 digits"),
        (b"a: caf\xe9\n", "line 1: not UTF-8"),
        (b"a: 1\nb: \xff\xfe\n", "line 2: not UTF-8"),
        (b'{"a": "\x00"}', "Invalid control character"),
        (b"\x00" * 100, "control characters"),
    ],
)
def test_what_is_no_document_is_named(console: Console, content: str | bytes, says: str) -> None:
    name = console.write("site.yaml", content)
    with pytest.raises(InvalidFile) as caught:
        read_document(console.environment(), name)
    assert caught.value.message.startswith(name)
    assert says in caught.value.message


def test_places_that_hold_no_file(console: Console) -> None:
    environment = console.environment()
    with pytest.raises(NotFound):
        read_document(environment, str(console.folder / "missing.yaml"))
    with pytest.raises(NotFound):
        read_document(environment, "")
    with pytest.raises(InvalidFile, match="Is a directory"):
        read_document(environment, str(console.folder))
    with pytest.raises(InvalidFile, match="null byte"):
        read_document(environment, "a\x00b")
    with pytest.raises(InvalidFile, match="too long"):
        read_document(environment, "x" * 1_000_000)


def test_a_file_that_may_not_be_read(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, mode: str) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(NotPermitted, match="may not be read"):
        read_document(console.environment(), "secret.yaml")


def test_size_is_limited_before_anything_is_parsed(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1024 * 1024)
    name = console.write("big.json", '{"a": "' + "x" * 1024 * 1024 + '"}')
    with pytest.raises(InvalidFile, match="more than 1 MB"):
        read_document(console.environment(), name)
    with pytest.raises(InvalidFile, match="more than 1 MB"):
        read_document(console.environment(), "/dev/zero")


def test_ten_thousand_of_each_are_no_exception(console: Console) -> None:
    """The size the appliance is made for; both formats have to give the same."""
    document = {
        "services": [{"name": f"s{n}", "addresses": [f"10.0.{n >> 8}.{n & 255}"]} for n in range(10_000)]
    }
    lines = "".join(
        f"- {{name: {entry['name']}, addresses: {entry['addresses']}}}\n" for entry in document["services"]
    )
    from_yaml = read_document(console.environment(), console.write("a.yaml", "services:\n" + lines))
    assert from_yaml == read_document(console.environment(), console.write("a.json", json.dumps(document)))
