"""What the verifier of kernel 6.1 asks of a program's shape, asked of the compiled objects on any kernel.

Its check_cfg() (kernel/bpf/verifier.c) walks all instructions depth first. A loop may begin anew by a jump;
one that falls through into its own beginning is a "back-edge", and refused. Which of the two a compiler makes
of a loop is its own affair, and changes with any line near it.

Its check_max_stack_depth() adds up what all functions that can be in one another have on the stack, callbacks
of bpf_loop included, each rounded up to 32 bytes; later kernels round up to 16.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from marchproxy import bpf
from tests.bpf.elf import Function, Object, functions

OBJECTS = sorted(path.name for path in bpf.OBJECTS.glob("*.bpf.o"))
_INSTRUCTION = struct.Struct("<BBhi")
_JUMPS, _WIDE = (5, 6), 0x18
"""BPF_JMP and BPF_JMP32; the load that takes two places."""
_JUMP, _CALL, _EXIT = 0x00, 0x80, 0x90
_MOVE, _ADD, _FRAME = 0xBF, 0x07, 10
"""BPF_ALU64: a register from another one, and a number added to one; the register that the frame ends at."""
_STACK, _STEP, _DEEPEST = 512, 32, 8
"""MAX_BPF_STACK, and MAX_CALL_FRAMES."""
_DISCOVERED, _EXPLORED, _FALLTHROUGH, _BRANCH = 0x10, 0x20, 1, 2


def edges(code: bytes, at: int) -> Iterator[tuple[int, int, bool]]:
    """From one instruction: where to, by which kind of edge, and whether a loop may close by it."""
    operation, _, offset, _ = _INSTRUCTION.unpack_from(code, 8 * at)
    kind = operation & 0xF0
    if operation & 7 not in _JUMPS:
        yield at + (2 if operation == _WIDE else 1), _FALLTHROUGH, False
    elif kind == _CALL:
        yield at + 1, _FALLTHROUGH, False
    elif kind == _JUMP:
        yield at + offset + 1, _FALLTHROUGH, True
    elif kind != _EXIT:
        yield at + 1, _FALLTHROUGH, True
        yield at + offset + 1, _BRANCH, True


def back_edges(code: bytes) -> list[tuple[int, int]]:
    """Where it falls through into what is being walked."""
    state, stack, found = {0: _DISCOVERED}, [0], []
    while stack:
        at, deeper = stack[-1], False
        for target, kind, closes in edges(code, at):
            if state[at] & 0xF and state[at] & 0xF >= kind:
                continue
            state[at] = _DISCOVERED | kind
            if target not in state:
                state[target] = _DISCOVERED
                stack.append(target)
                deeper = True
                break
            if not state[target] & _EXPLORED and not closes:
                found.append((at, target))
        if not deeper:
            state[at] = _EXPLORED
            stack.pop()
    return found


def instructions(*said: tuple[int, int]) -> bytes:
    return b"".join(_INSTRUCTION.pack(operation, 0, offset, 0) for operation, offset in said)


def test_a_loop_closes_by_a_jump_and_not_by_falling_into_itself() -> None:
    move, jump, jump_if, leave = 0xB7, 0x05, 0x15, 0x95
    assert back_edges(instructions((move, 0), (move, 0), (jump_if, -2), (leave, 0))) == []
    # Entered in the middle: from the last of it the first one follows without a jump.
    rotated = instructions((jump, 2), (move, 0), (jump, 2), (move, 0), (jump, -4), (leave, 0))
    assert back_edges(rotated) == []
    falling = instructions((jump, 1), (move, 0), (jump_if, 1), (jump, -3), (leave, 0))
    assert back_edges(falling) == [(1, 2)]


@pytest.mark.parametrize("name", OBJECTS)
def test_no_function_of_ours_does(name: str) -> None:
    found = {function: back_edges(code) for function, code in functions(Path(bpf.OBJECTS / name))}
    assert found
    assert {function: where for function, where in found.items() if where} == {}


def stack(code: bytes) -> int:
    """Bytes below the end of its frame that a function reads, writes or points to."""
    deepest, pointing = 0, set[int]()
    for at in range(0, len(code), 8):
        operation, registers, offset, immediate = _INSTRUCTION.unpack_from(code, at)
        target, source = registers & 0xF, registers >> 4
        if operation & 7 in (1, 2, 3):
            base = source if operation & 7 == 1 else target
            deepest = max(deepest, -offset if base == _FRAME else 0)
        if operation == _ADD and target in pointing:
            deepest = max(deepest, -immediate)
        pointing.discard(target)
        if operation == _MOVE and source == _FRAME:
            pointing.add(target)
    return deepest


def deepest_way(held: Object, function: Function) -> tuple[int, list[str]]:
    """The most bytes that it has on the stack together with what is called from it, and by which way."""
    ways = (deepest_way(held, each) for each in held.named_by(function))
    below, names = max(ways, default=(0, []))
    own = -(-max(stack(function.code), 1) // _STEP) * _STEP
    return own + below, [function.name, *names]


def test_what_is_on_the_stack_is_what_is_used_of_it() -> None:
    store, load, leave = 0x7B, 0x79, (0x95, 0, 0, 0)
    said = ((store, 0x1A, -8, 0), (load, 0xA1, -24, 0), (_MOVE, 0xA2, 0, 0), (_ADD, 2, 0, -40), leave)
    assert stack(b"".join(_INSTRUCTION.pack(*each) for each in said)) == 40
    assert stack(b"".join(_INSTRUCTION.pack(*each) for each in said[:2])) == 24
    elsewhere = ((load, 0x1A, -64, 0), (_ADD, 1, 0, -64), leave)
    assert stack(b"".join(_INSTRUCTION.pack(*each) for each in elsewhere)) == 0


@pytest.mark.parametrize("name", OBJECTS)
def test_no_way_through_the_functions_takes_more_stack_than_there_is(name: str) -> None:
    held = Object(Path(bpf.OBJECTS / name))
    for function in held.functions:
        octets, way = deepest_way(held, function)
        assert octets <= _STACK, (octets, way)
        assert len(way) <= _DEEPEST, way


def test_the_ways_lead_through_callbacks() -> None:
    held = Object(Path(bpf.OBJECTS / "tc.bpf.o"))
    (search,) = (each for each in held.functions if each.name == "block_search")
    assert {each.name for each in held.named_by(search)} == {"block_step"}
