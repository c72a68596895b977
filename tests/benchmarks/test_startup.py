"""What is measured is what an operator runs, and runs to its end."""

import subprocess

import pytest

from benchmarks.startup import BUDGETS, CHECKOUT, appliance


@pytest.mark.parametrize("command", BUDGETS)
def test_each_command_does_what_it_is_measured_for(command: str) -> None:
    with appliance() as environment:
        done = subprocess.run(
            [*CHECKOUT, *command.split()], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
