"""Questions, and what may answer them."""

import io

import pytest

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import Declined, WrongUsage
from marchproxy.cli.questions import Questions, read_yes
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port
from tests.cli.console import Keyboard, Screen


def questions(typed: str, *, tty: bool = False, silent: bool = False) -> tuple[Questions, Screen]:
    screen = Screen(tty=tty)
    environment = Environment(
        {}, stdin=Keyboard(typed.encode(), tty=tty), stdout=io.StringIO(), stderr=screen
    )
    return Questions(environment, silent=silent), screen


def test_an_empty_line_is_the_default() -> None:
    asked, screen = questions("\n 80 \n")
    assert asked.ask("Port", "22", parse_port, "--port") == 22
    assert asked.ask("Port", "22", parse_port, "--port") == 80
    assert screen.getvalue() == "Port [22]: \nPort [22]: 80\n"


def test_nobody_is_asked_who_said_yes() -> None:
    asked, screen = questions("80\n", silent=True)
    assert asked.ask("Port", "22", parse_port, "--port") == 22
    with pytest.raises(WrongUsage, match="nothing says: Port") as refused:
        asked.ask("Port", None, parse_port, "--port")
    assert "--port" in refused.value.hint
    assert screen.getvalue() == ""


def test_a_person_may_try_again() -> None:
    asked, screen = questions("nonsense\n\n80\n", tty=True)
    assert asked.ask("Port", None, parse_port, "--port") == 80
    assert "nonsense" in screen.getvalue()


def test_a_script_may_not() -> None:
    asked, _ = questions("nonsense\n80\n")
    with pytest.raises(InvalidValue, match="nonsense"):
        asked.ask("Port", None, parse_port, "--port")


@pytest.mark.parametrize(("typed", "said"), [("", "stdin has no answer to: Port"), ("\n", "an empty line")])
def test_a_script_that_ends_early(typed: str, said: str) -> None:
    asked, _ = questions(typed)
    with pytest.raises(WrongUsage, match=said):
        asked.ask("Port", None, parse_port, "--port")


def test_a_person_who_ends_the_input() -> None:
    asked, _ = questions("", tty=True)
    with pytest.raises(Declined, match="nothing was written"):
        asked.agree("Write this", True, "--yes")


def test_yes_and_no() -> None:
    assert [read_yes("x", text) for text in ("y", "YES", "true", "n", "No", "false")] == [True] * 3 + [
        False
    ] * 3
    with pytest.raises(InvalidValue, match="perhaps"):
        read_yes("x", "perhaps")
