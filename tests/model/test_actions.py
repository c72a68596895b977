"""What operators write about what becomes of requests."""

import pytest

from marchproxy.model.actions import (
    HeaderAction,
    header_action,
    parse_header_action,
    parse_new_host,
    parse_new_path,
    parse_redirect,
)
from marchproxy.model.errors import InvalidValue


@pytest.mark.parametrize(
    "text",
    [
        *("https://{host}{path}", "https://example.com/new", "http://{host}:8080{path}", "/new{path}", "/x"),
        *("https://example.com{path}?from=old", "https://www.{host}", "https://[2001:db8::1]{path}"),
    ],
)
def test_redirects(text: str) -> None:
    assert parse_redirect(f" {text} ", field="redirect") == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "{path}", "//evil.example", "/{path}", "https://a/{path}", "https://{path}", "https:///x"),
        *(
            "https://{hosts}",
            "https://{",
            "}",
            "ftp://a",
            "javascript:alert(1)",
            "https://a/#b",
            "https://a b",
        ),
        *("https://a/#b", "https://user@a{path}", "https://a\r\nx: y", "example.com", "https://ä.example"),
    ],
)
def test_redirects_that_lead_nowhere_or_anywhere(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_redirect(text, field="redirect")


def test_new_paths() -> None:
    assert parse_new_path("/v2/", field="f") == "/v2/"
    for text in ("", "v2", "/a/../b", "/.", "//a", "/a//b", "/a?b", "/%2e", "/a b", "/ä", "/a\r\nb"):
        with pytest.raises(InvalidValue):
            parse_new_path(text, field="f")


def test_new_hosts() -> None:
    assert parse_new_host("App.Internal:8080", field="f") == "app.internal:8080"
    for text in ("", "a b", "a:0", "a:x", "a/b", "a..b", "a\r\nb", "user@a", "-a"):
        with pytest.raises(InvalidValue):
            parse_new_host(text, field="f")


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("set X-Env  prod", HeaderAction("set", "x-env", "prod")),
        ("SET X-Env: prod", HeaderAction("set", "x-env", "prod")),
        ("add Cache-Control no-store, private", HeaderAction("add", "cache-control", "no-store, private")),
        ("remove Server", HeaderAction("remove", "server")),
    ],
)
def test_header_actions(text: str, action: HeaderAction) -> None:
    canonical = parse_header_action(text, field="f")
    assert parse_header_action(canonical, field="f") == canonical
    assert header_action(canonical) == action


@pytest.mark.parametrize(
    "text",
    [
        *("", "set", "set X-Env", "put X-Env a", "remove", "remove X-Env a", "set X-Env a\r\nb: c"),
        *(
            "set Host a",
            "remove Content-Length",
            "set Transfer_Encoding chunked",
            "add X-Forwarded-For 1.2.3.4",
        ),
        *(
            "set X-MarchProxy-Service a",
            "remove Forwarded",
            "add Connection close",
            "set Via x",
            "set Upgrade a",
        ),
    ],
)
def test_what_is_not_for_operators(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_header_action(text, field="f")
