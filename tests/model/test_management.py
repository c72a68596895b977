"""Which ports stay the host's."""

import pytest

from marchproxy.model.errors import InvalidValue
from marchproxy.model.management import VARIABLE, read_management_ports


@pytest.mark.parametrize(
    ("text", "ports"), [("", {22}), ("22", {22}), ("22,2222", {22, 2222}), (" 1 , 65535 ,", {1, 65535})]
)
def test_ports_are_those_of_the_environment_or_22(text: str, ports: set[int]) -> None:
    assert read_management_ports({VARIABLE: text}) == ports
    assert read_management_ports({}) == {22}


@pytest.mark.parametrize("text", ["ssh", "0", "65536", "22;23"])
def test_ports_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue, match=VARIABLE):
        read_management_ports({VARIABLE: text})
