"""What becomes of requests."""

from typing import Any

import pytest

from marchproxy.model.actions import HeaderAction
from marchproxy.model.documents import read_mapping
from marchproxy.policy.actions import Actions, act
from tests.policy.build import mapping


def made(destinations: str = "web", **fields: Any) -> Actions:
    document = {"listen": "192.0.2.1:80", "protocols": "http", **fields}
    if destinations:
        found = Actions.of(mapping("m", "all", destinations, **document))
    else:
        document |= {"name": "m", "sources": ["all"], "protocols": ["http"]}
        found = Actions.of(read_mapping(document))
    assert found is not None
    return found


def test_a_mapping_without_any_has_none() -> None:
    assert Actions.of(mapping("m", "all", "web", "192.0.2.1:80", "http", path_prefix="/api")) is None


@pytest.mark.parametrize(
    ("prefix", "new", "target", "path", "expected"),
    [
        ("/api", "/v2", "/api/x?y=1", "/api/x", "/v2/x?y=1"),
        ("/api/", "/v2/", "/api", "/api", "/v2/"),
        ("/api", "/", "/api", "/api", "/"),
        ("/api", "/", "/api/x;v=1", "/api/x", "/x;v=1"),
        ("/api", "/", "/api//evil.example/x", "/api/evil.example/x", "/evil.example/x"),
        ("/api", "/v2", "/%61pi/x;v=1?q", "/api/x", "/v2/x?q"),
        ("/api", "/v2", "//api/x", "/api/x", "/v2/x"),
        ("/api", "/v2", "/other", "/other", "/other"),
        ("/api", "/v2", "/apis", "/apis", "/apis"),
        (None, "/v2", "/x?y", "/x", "/v2/x?y"),
        (None, "/v2", "/", "/", "/v2/"),
        (None, "/v2", "*", "*", "*"),
    ],
)
def test_prefixes_are_replaced(prefix: str | None, new: str, target: str, path: str, expected: str) -> None:
    assert made(path_prefix=prefix, rewrite_prefix=new).target(target, path) == expected


def test_a_whole_path_is_replaced_whole() -> None:
    assert made(path="/old", rewrite_prefix="/new").target("/old?x=1", "/old") == "/new?x=1"


@pytest.mark.parametrize(
    ("redirect", "target", "expected"),
    [
        ("https://{host}{path}", "/a/b?c=d", "https://shop.example/a/b?c=d"),
        ("https://{host}{path}", "//evil.example", "https://shop.example//evil.example"),
        ("https://new.example{path}?from=old", "/a?c=d", "https://new.example/a?from=old"),
        ("/new{path}", "/a", "/new/a"),
        ("https://new.example/", "/a?b", "https://new.example/?b"),
    ],
)
def test_redirects(redirect: str, target: str, expected: str) -> None:
    assert made("", redirect=redirect).location("shop.example", target, "/a") == expected


def test_a_redirect_takes_the_path_as_it_is_rewritten() -> None:
    actions = made("", redirect="https://{host}{path}", path_prefix="/old", rewrite_prefix="/new")
    assert actions.location("2001:db8::1", "/old/x", "/old/x") == "https://[2001:db8::1]/new/x"
    assert actions.location("h", "*", "*") == "https://h/"


def test_headers_are_changed_one_after_the_other() -> None:
    steps = (
        HeaderAction("remove", "server"),
        HeaderAction("set", "x-env", "prod"),
        HeaderAction("add", "vary", "b"),
    )
    fields = (("server", "x"), ("x-env", "a"), ("x_env", "b"), ("vary", "a"))
    assert act(steps, fields) == (("vary", "a"), ("x-env", "prod"), ("vary", "b"))
