"""IPv4 inside IPv6; which addresses are inward is tested with the names that may not have them."""

from ipaddress import IPv6Address, ip_address

import pytest

from marchproxy.model.inward import embedded, inward


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("::1.2.3.4", "1.2.3.4"),
        ("64:ff9b::1.2.3.4", "1.2.3.4"),
        ("2002:102:304:5::6", "1.2.3.4"),
    ],
)
def test_embedded_addresses_are_found(text: str, inner: str) -> None:
    assert embedded(IPv6Address(text)) == ip_address(inner)


def test_an_ordinary_address_embeds_none() -> None:
    assert embedded(IPv6Address("2001:db8::102:304")) is None
    assert inward(ip_address("2001:db8::102:304")) == ""
