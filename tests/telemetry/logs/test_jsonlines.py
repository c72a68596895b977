"""Requests as lines of JSON."""

import json

from marchproxy.telemetry.logs.jsonlines import encode, line
from tests.telemetry.logs.made import asked, ended, message


def test_only_requests_are_lines() -> None:
    assert encode([ended(), message()]) == b""
    assert encode([asked(), ended(), asked()]).count(b"\n") == 2


def test_every_field_is_always_there_in_the_same_order() -> None:
    whole = json.loads(line(asked()))
    bare = json.loads(line(asked(mapping="", route="", backend="", tls="", traceparent="", status=0)))
    assert list(whole) == list(bare)
    assert (bare["scheme"], bare["tls"], whole["scheme"], whole["tls"]) == ("http", "", "https", "TLSv1.3")


def test_nothing_in_a_path_begins_another_line() -> None:
    text = line(asked(path='/a"\r\n\u2028\x85\x1b', host="h\n"))
    assert text.count("\n") == 1
    assert text.splitlines() == [text[:-1]]
    assert json.loads(text)["path"] == '/a"\r\n\u2028\x85\x1b'
