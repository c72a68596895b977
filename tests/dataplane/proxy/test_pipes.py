"""Pipes are lent empty, and few of them are kept."""

import os

from marchproxy.dataplane.proxy.pipes import KEPT, PIPE_SIZE, Pipes


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_pipe_that_comes_back_empty_is_lent_again() -> None:
    pipes = Pipes()
    first = pipes.take()
    assert first is not None
    assert os.write(first.into, bytes(PIPE_SIZE)) > 0
    assert os.read(first.out, PIPE_SIZE)
    while pipes.lent:
        pipes.give_back(first)
    assert pipes.take() == first
    pipes.give_back(first, empty=False)
    assert not is_open(first.out)
    assert not is_open(first.into)


def test_what_still_holds_bytes_is_lent_to_nobody() -> None:
    pipes = Pipes()
    pipe = pipes.take()
    assert pipe is not None
    os.write(pipe.into, b"secret")
    pipes.give_back(pipe, empty=False)
    other = pipes.take()
    assert other is not None
    try:
        os.read(other.out, 10)
        raise AssertionError("it holds bytes")
    except BlockingIOError:
        pass
    pipes.give_back(other, empty=False)


def test_there_is_an_end_to_them_and_idle_ones_are_few() -> None:
    pipes = Pipes(lent=KEPT + 2)
    every = list(iter(pipes.take, None))
    assert len(every) == KEPT + 2
    for pipe in every:
        pipes.give_back(pipe)
    kept = [pipe for pipe in every if is_open(pipe.out)]
    assert len(kept) == KEPT
    for _ in kept:
        taken = pipes.take()
        assert taken is not None
        pipes.give_back(taken, empty=False)
    assert not any(is_open(pipe.out) for pipe in kept)
