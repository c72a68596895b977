"""Names of HTTP fields that operators may write."""

import pytest

from marchproxy.model.errors import InvalidValue
from marchproxy.model.httpfields import parse_field_name, parse_field_value


def test_names_are_in_lower_case() -> None:
    assert parse_field_name(" Strict-Transport-Security ", field="f") == "strict-transport-security"


@pytest.mark.parametrize(
    "name",
    [
        *("", "a b", "a:", "ä", "x\r\ny", "x" * 64, "Host", "Transfer-Encoding", "transfer_encoding", "Via"),
        *("Content-Length", "Connection", "Upgrade", "TE", "Trailer", "Expect", "Forwarded", "X-Real-IP"),
        *("X-Forwarded-Host", "X_Forwarded_Host", "X-MarchProxy-Service", "Proxy-Authorization"),
    ],
)
def test_names_that_are_none_or_ours_are_refused(name: str) -> None:
    with pytest.raises(InvalidValue):
        parse_field_name(name, field="f")


def test_values_are_printable() -> None:
    assert parse_field_value(" max-age=1; x ", field="f") == "max-age=1; x"
    for value in ("", " ", "a\r\nb", "a\0", "ü", "x" * 1025):
        with pytest.raises(InvalidValue):
            parse_field_value(value, field="f")
