"""rodata: constants by name, before the object is loaded."""

import struct
from pathlib import Path

import pytest

from marchproxy.dataplane.kernel.errors import ObjectInvalid
from marchproxy.dataplane.kernel.objects import BpfObject
from marchproxy.dataplane.kernel.testrun import run
from tests.dataplane.kernel.support import FRAME

pytestmark = pytest.mark.requires("bpf", "ringbuf", commands=["clang"])


def test_defaults_are_those_of_the_source(tables: BpfObject) -> None:
    result = run(tables.programs["xdp_first"], FRAME)
    assert (result.action, result.packet[:1]) == (2, b"a")


def test_each_constant_reaches_the_program(tables_object: Path) -> None:
    values = {"verdict": struct.pack("=I", 3), "label": b"xyz\0"}
    with BpfObject.load(tables_object, rodata=values) as loaded:
        result = run(loaded.programs["xdp_first"], FRAME)
    assert (result.action, result.packet[:1]) == (3, b"x")


def test_the_others_keep_their_values(tables_object: Path) -> None:
    with BpfObject.load(tables_object, rodata={"verdict": struct.pack("=I", 1)}) as loaded:
        result = run(loaded.programs["xdp_first"], FRAME)
    assert (result.action, result.packet[:1]) == (1, b"a")


def test_unknown_constants_list_what_there_is(tables_object: Path) -> None:
    with pytest.raises(ObjectInvalid, match="the object has no constant 'verdikt'") as raised:
        BpfObject.load(tables_object, rodata={"verdikt": bytes(4)})
    assert raised.value.hint == "it has: label, verdict"


def test_an_object_without_constants(rejected_object: Path) -> None:
    with pytest.raises(ObjectInvalid, match="no constant 'verdict'") as raised:
        BpfObject.load(rejected_object, rodata={"verdict": bytes(4)})
    assert raised.value.hint == "it has: none"


def test_a_value_of_another_size(tables_object: Path) -> None:
    with pytest.raises(ObjectInvalid, match="constant 'verdict' has 4 bytes, and was given 8"):
        BpfObject.load(tables_object, rodata={"verdict": bytes(8)})
