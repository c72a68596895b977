"""Waiting for conditions."""

import itertools

import pytest

from rig.waiting import RigError, wait_for


def test_first_true_value_is_returned() -> None:
    answers = iter([None, "", "done", "late"])
    assert wait_for(lambda: next(answers), "an answer") == "done"


def test_a_condition_that_never_holds_names_what_was_waited_for() -> None:
    asked = itertools.count()
    with pytest.raises(RigError, match=r"waited 0\.02 s in vain for rain"):
        wait_for(lambda: next(asked) < 0, "rain", timeout=0.02)
    assert next(asked) > 1
