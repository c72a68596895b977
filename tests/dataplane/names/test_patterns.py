"""Names and wildcards."""

import pytest

from marchproxy.dataplane.names.patterns import Patterns

PATTERNS = Patterns(["example.com", "*.example.com", "*.a.example.com", "db.example.net", "*.com"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("example.com", ["example.com", "*.com"]),
        ("x.example.com", ["*.example.com", "*.com"]),
        ("y.x.example.com", ["*.example.com", "*.com"]),
        ("a.example.com", ["*.example.com", "*.com"]),
        ("b.a.example.com", ["*.a.example.com", "*.example.com", "*.com"]),
        ("badexample.com", ["*.com"]),
        ("db.example.net", ["db.example.net"]),
        ("x.db.example.net", []),
        ("com", []),
        ("", []),
        (".", []),
    ],
)
def test_a_wildcard_is_everything_below_and_not_itself(name: str, expected: list[str]) -> None:
    assert PATTERNS.matching(name) == expected


def test_no_patterns_match_nothing() -> None:
    assert Patterns(()).matching("example.com") == []
