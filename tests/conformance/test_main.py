"""The page that the suites' results are put into."""

from conformance.__main__ import BEGIN, END, PAGE, table, written
from conformance.suites import Outcome


def test_results_take_the_place_of_those_before() -> None:
    page = f"before\n{BEGIN}old\n{END}\nbehind\n"
    assert written(page, "new\n") == f"before\n{BEGIN}new\n{END}\nbehind\n"
    assert PAGE.read_text().count(BEGIN) == PAGE.read_text().count(END) == 1


def test_what_failed_and_what_was_not_run_is_said() -> None:
    said = table(
        [
            Outcome("one", "this", 7, ("case 3",), "of these: 2 informational"),
            Outcome("other", "that", said="not run: it is not here"),
        ]
    )
    assert "| one | this | 7, of these: 2 informational | 1 |" in said
    assert "| other | that | not run: it is not here |  |" in said
    assert said.endswith("Failed in one, this:\n\n- case 3\n")
