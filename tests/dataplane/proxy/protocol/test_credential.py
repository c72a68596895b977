"""Credentials as clients write them."""

from base64 import b64encode

import pytest

from marchproxy.dataplane.proxy.protocol.credential import read_authorization, read_pair, read_token
from marchproxy.dataplane.proxy.protocol.exchange import Unfit
from marchproxy.model.presented import MAX_SECRET, Presented
from marchproxy.model.reason import Reason


def test_a_service_is_named_as_operators_name_it() -> None:
    assert read_pair("eu/web", "t") == Presented("t", "eu/web")
    assert read_pair("default/web", "t") == Presented("t", "web")
    assert read_pair("", "t") == Presented("t")


def test_a_token_may_be_large_and_no_larger() -> None:
    assert read_token("x" * MAX_SECRET).secret == "x" * MAX_SECRET
    with pytest.raises(Unfit):
        read_token("x" * (MAX_SECRET + 1))


@pytest.mark.parametrize("token", ["", " ", "a b", "a\0", "a\n", "\x7f", "ä"])
def test_no_token_holds_what_could_break_a_line(token: str) -> None:
    with pytest.raises(Unfit) as unfit:
        read_token(token)
    assert unfit.value.reason is Reason.AUTH_INVALID


def test_the_scheme_is_in_any_case() -> None:
    assert read_authorization("BEARER abc") == Presented("abc")
    assert read_authorization("basic " + b64encode(b"web:a:b").decode()) == Presented("a:b", "web")


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Basic", "Basic d2Vi", "Basic d2ViOmE", "Basic d2V iOmE=", "Digest a=b", "Bearer a b"],
)
def test_other_forms_are_refused(value: str) -> None:
    with pytest.raises(Unfit) as unfit:
        read_authorization(value)
    assert unfit.value.reason is Reason.AUTH_INVALID
