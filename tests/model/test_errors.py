import pytest

from marchproxy.model import errors
from marchproxy.model.errors import Conflict, InvalidValue, MarchproxyError, NotFound

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
]


@pytest.mark.parametrize("error", CLASSES)
def test_one_base_lets_a_front_end_catch_them_all(error: type[Exception]) -> None:
    assert issubclass(error, MarchproxyError)


def test_an_error_is_a_sentence_and_a_hint() -> None:
    error = Conflict("service 'web' already exists", hint="choose another name")
    assert (str(error), error.message, error.hint) == ("service 'web' already exists",) * 2 + (
        "choose another name",
    )
    assert Conflict("no").hint == ""


def test_a_wrong_value_names_field_value_and_what_would_be_right() -> None:
    error = InvalidValue("port", "http", "a port number from 1 to 65535")
    assert error.message == "port: 'http' is not valid"
    assert error.hint == "expected a port number from 1 to 65535"


def test_places_are_added_from_the_outside() -> None:
    error = InvalidValue("port", 0, "more").at('service "web"').at("line 12")
    assert error.message == 'line 12, service "web": port: 0 is not valid'
    assert (error.field, error.value, error.where) == ("port", 0, 'line 12, service "web"')


def test_a_pasted_file_does_not_fill_the_screen() -> None:
    error = InvalidValue("description", "x" * 100_000, "less")
    assert len(error.message) < 200
    assert error.value == "x" * 100_000


def test_what_is_missing_is_named() -> None:
    error = NotFound("service", "web", hint="marchproxy service list")
    assert error.message == "service 'web' does not exist"
    assert (error.kind, error.name) == ("service", "web")
