"""Whatever comes from outside is read or refused, and never a crash.

`make fuzz SECONDS=600` goes on for longer, and keeps what it finds in `tests/corpus`.
"""

import pytest
from hypothesis import given

from tests.examples import examples
from tests.fuzz.corpus import CORPUS, entries
from tests.fuzz.edits import inputs
from tests.fuzz.targets import TARGETS

KEPT = [(target, name, data) for target in TARGETS for name, data in entries(target)]
EXAMPLES = {"store": 15, "files": 40, "cli": 15}
"""Of targets that take milliseconds; others have a hundred."""


@pytest.mark.parametrize(("target", "data"), [(each, data) for each, _, data in KEPT],
                         ids=[f"{each}-{name}" for each, name, _ in KEPT])  # fmt: skip
def test_what_was_found_once(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_edited_inputs(target: str) -> None:
    @examples(EXAMPLES.get(target, 100))
    @given(inputs([data for _, data in entries(target)]))
    def attempt(data: bytes) -> None:
        TARGETS[target](data)

    attempt()


def test_there_is_something_to_begin_with() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(entries(target) for target in TARGETS)
