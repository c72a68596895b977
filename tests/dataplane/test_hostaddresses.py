"""Which addresses end on this host."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.hostaddresses import is_local


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("127.0.0.1", True),
        ("127.5.5.5", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
    ],
)
def test_an_address_is_local_or_not(text: str, local: bool) -> None:
    assert is_local(ip_address(text)) is local
