"""Paths of requests in one form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.policy.paths import canonical_path


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/", "/"),
        ("/a/b?x=/../y", "/a/b"),
        ("/a//b///", "/a/b/"),
        ("//a", "/a"),
        ("/%61%2dB", "/a-B"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%20b", "/a%20b"),
        ("/.well-known/acme", "/.well-known/acme"),
        ("/a/...", "/a/..."),
        ("/a.b/c..d", "/a.b/c..d"),
        ("*", "*"),
        ("/f;v=1/g;w", "/f/g"),
        ("/admin;x", "/admin"),
    ],
)
def test_one_form(target: str, path: str) -> None:
    assert canonical_path(target) == path


@pytest.mark.parametrize(
    "target",
    [
        *("/a/../b", "/..", "/a/.", "/./a", "/a/%2e%2e/b", "/a/.%2E", "/%2e", "/a/..;x=1/b", "/a/..?q"),
        *("/a%2f..%2fb", "/a%5c..%5cb", "/a\\..\\b", "/a%", "/a%2", "/a%zz", "/a%00", "", "a/b", "/a#b"),
    ],
)
def test_what_has_two_readings_is_refused(target: str) -> None:
    assert canonical_path(target) is None


@given(st.text(st.sampled_from("/.%2e5cfaA;\\?"), max_size=24).map(lambda text: f"/{text}"))
def test_what_is_taken_stays_as_it_is(target: str) -> None:
    path = canonical_path(target)
    if path is not None:
        assert canonical_path(path) == path
        assert "//" not in path
        assert not {".", ".."} & set(path.split("/"))


@pytest.mark.parametrize("target", ["/a/%252e%252e/b", "/a%252f..%252fb", "/" + "%25" * 3 + "25" * 6 + "41"])
def test_escapes_of_escapes_hide_nothing(target: str) -> None:
    assert canonical_path(target) is None
