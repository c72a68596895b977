"""Numbers that C and Python both write down. (Structs: tests/dataplane/kernel/test_layouts.py.)"""

import re
from pathlib import Path

import pytest

from marchproxy import bpf
from marchproxy.dataplane.kernel import layouts
from marchproxy.model.reason import Reason
from tests.bpf import test_nat, test_tcp

SOURCES = Path(bpf.__file__).parent
BANKED = ("BANKS", "LISTENERS", "RULES", "POOL_SLOTS", "BACKENDS", "PREFIXES", "SOURCE_BITS")
TRANSIT = ("TRANSIT_BITS", "CLASSES", "PORT_ECHO", "PORT_CLASSES", "NAT_ADDRESSES")


def defined(header: str, name: str) -> int:
    """The value of a macro: a number, or a shifted one."""
    (text,) = re.findall(rf"^#define {name}\s+\(?([^)/\n]+)", (SOURCES / header).read_text(), re.MULTILINE)
    number, _, shift = text.replace("u", "").partition("<<")
    return int(number, 0) << int(shift or "0")


LIMITS = ("LIMITS", "LIMIT_SETS", "LIMIT_PREFIXES", "LIMIT_SHARED", "LIMIT_NONE", "LIMIT_SHIFT")


@pytest.mark.parametrize(
    "name",
    [
        *BANKED,
        *LIMITS,
        *TRANSIT,
        "CLASS_STRANGER",
        "CLASS_ANYONE",
        "CLASS_DIMENSION_SHIFT",
        "CLASS_BANK_SHIFT",
    ],
)
def test_constant_of_the_policy_maps(name: str) -> None:
    assert defined("marchproxy.h", f"MP_{name}") == getattr(layouts, name)


def test_reasons_are_the_models_in_order() -> None:
    listed = re.findall(r"X\((\w+),\s*(\d+)\)", (SOURCES / "reasons.h").read_text())
    assert listed == [(reason.name, str(reason.value)) for reason in Reason]


def test_every_reason_has_a_counter() -> None:
    assert max(Reason) < defined("reasons.h", "MP_REASON_COUNT")


def test_tests_know_the_limits_they_probe() -> None:
    assert defined("flow.h", "FLOW_NAT_TRIES") == test_nat.TRIES
    assert defined("flow.h", "FLOW_PROOF_WINDOW") == test_tcp.PROOF_WINDOW
