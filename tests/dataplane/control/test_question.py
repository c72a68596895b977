"""What `explain` asks."""

from typing import Any

import pytest

from marchproxy.dataplane.control.question import read_question
from marchproxy.model.errors import InvalidValue

ASKED = {"source": "10.0.0.5", "destination": "192.0.2.1", "protocol": "tcp", "port": 80}


def test_a_request_is_read() -> None:
    more = {"host": "Shop.example.", "path": "/%61", "query": "y=1", "method": "post", "headers": ["X-A: b"]}
    query = read_question(ASKED | more)
    assert (query.host, query.path, query.target) == ("shop.example", "/a", "/%61?y=1")
    assert (query.method, query.fields) == ("POST", (("x-a", "b"),))


def test_without_one_it_is_the_simplest() -> None:
    query = read_question(ASKED)
    assert (query.host, query.path, query.method, query.fields) == ("192.0.2.1", "/", "GET", ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "GE T"},
        {"headers": "X-A: b"},
        {"headers": ["X-A"]},
        {"headers": [1]},
        {"headers": ["X-Forwarded-For: 1.2.3.4"]},
        {"query": "a b"},
        {"query": "a\nb"},
        {"path": "/../x"},
        {"port": 0},
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        read_question(ASKED | wrong)
