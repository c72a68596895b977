import re
from pathlib import Path

from marchproxy.model.reason import Reason, Tier

PAGE = Path(__file__).parents[2] / "docs" / "REASONS.md"
HEADER = Path(__file__).parents[2] / "marchproxy" / "bpf" / "reasons.h"


def test_the_enum_and_the_kernel_s_header_are_one_list() -> None:
    listed = re.findall(r"^\tX\((\w+), +(\d+)\)", HEADER.read_text(), re.MULTILINE)
    assert [(name, int(number)) for name, number in listed] == [
        (reason.name, reason.value) for reason in Reason
    ]


def test_the_documentation_says_what_each_reason_means() -> None:
    page = PAGE.read_text()
    missing = [reason.name for reason in Reason if f"| `{reason.name}` | {reason.meaning} |" not in page]
    assert missing == []


def test_asymmetric_routing_is_named() -> None:
    assert "routed past us" in Reason.NO_FLOW.meaning


def test_zero_is_no_reason() -> None:
    """A kernel record that was never filled in must not read as a verdict."""
    assert 0 not in set(Reason)


def test_tiers_have_the_names_operators_read() -> None:
    assert [tier.label for tier in Tier] == ["sockets", "tc", "xdp"]
