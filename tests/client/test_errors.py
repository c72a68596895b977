"""Errors of front ends are errors that an operator may read."""

from marchproxy.client.errors import InvalidPolicy, Refused
from marchproxy.model.errors import MarchproxyError


def test_they_have_a_message_and_a_hint() -> None:
    refused = Refused("InvalidValue", "no", hint="so")
    assert (refused.kind, refused.message, refused.hint) == ("InvalidValue", "no", "so")
    assert isinstance(refused, MarchproxyError)
    assert issubclass(InvalidPolicy, MarchproxyError)
