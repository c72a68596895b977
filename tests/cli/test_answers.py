"""Answers from flags and files."""

import pytest

from marchproxy.cli.answers import Answers, read_answers, read_names, read_ports
from marchproxy.model.errors import InvalidValue
from tests.cli.console import Console

FILE = """\
inside: [eth1, eth2]
outside: eth0
masquerade: true
block_list: builtin
management_ports: [22, 2222]
start: false
"""


def test_a_file(console: Console) -> None:
    found = read_answers(console.environment(), console.write("box.yaml", FILE))
    assert found == Answers(("eth1", "eth2"), ("eth0",), True, "builtin", (22, 2222), False)


def test_none_at_all_is_an_answer(console: Console) -> None:
    found = read_answers(console.environment(), console.write("box.yaml", "outside: []\nblock_list: none\n"))
    assert found == Answers(outside=(), block_list="none")


def test_what_comes_first_wins() -> None:
    flags = Answers(inside=("eth9",), masquerade=False, outside=())
    file = Answers(("eth1",), ("eth0",), True, "none")
    assert flags.over(file) == Answers(("eth9",), (), False, "none")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("insidee: eth0\n", "box.yaml: answer: 'insidee' is not valid"),
        ("masquerade: perhaps\n", "box.yaml: masquerade: 'perhaps' is not valid"),
        ("management_ports: [ssh]\n", "box.yaml: management_ports: 'ssh' is not valid"),
        ("management_ports: []\n", "box.yaml: management_ports"),
        ("inside: {eth0: yes}\n", "box.yaml: inside"),
        ("inside: [[eth0]]\n", "box.yaml: inside"),
    ],
)
def test_what_cannot_be_meant(console: Console, text: str, said: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        read_answers(console.environment(), console.write("box.yaml", text))
    assert said in refused.value.message


def test_lists_of_words() -> None:
    assert read_names("inside", "eth1, eth2 eth1") == ("eth1", "eth2")
    assert read_names("inside", "none") == ()
    assert read_ports("ports", "2222,22") == (22, 2222)
