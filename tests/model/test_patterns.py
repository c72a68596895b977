"""Names and wildcards."""

import pytest

from marchproxy.model.patterns import Patterns

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


@pytest.mark.parametrize(
    ("name", "met"),
    [
        ("db.corp.example", True),
        ("www.corp.example", False),
        ("a.lab.example", True),
        ("lab.example", False),
        ("*.corp.example", True),
        ("*.lab.example", True),
        ("*.b.lab.example", True),
        ("*.example", True),
        ("*.db.corp.example", False),
        ("*.other.example", False),
        ("*.ab.example", False),
    ],
)
def test_wildcards_meet_what_has_a_name_in_common(name: str, met: bool) -> None:
    assert Patterns(["db.corp.example", "*.lab.example"]).meets(name) is met
