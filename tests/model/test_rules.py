"""Rules between the fields of one entity. Those of mappings are in test_documents.py, with their fields."""

import pytest

from marchproxy.model.appliance import ApplianceListener, Limit
from marchproxy.model.documents import Document, read_entity, read_service
from marchproxy.model.entities import Interface
from marchproxy.model.errors import InvalidValue

WEB: Document = {"name": "web", "addresses": ["10.0.0.1", "10.1.0.0/24", "2001:db8::1"]}


@pytest.mark.parametrize("drained", ["10.0.0.1", "10.1.0.7", "2001:db8::1"])
def test_what_is_drained_is_among_its_own(drained: str) -> None:
    assert read_service(WEB | {"drain": [drained]}).drain == (drained,)


@pytest.mark.parametrize("drained", ["10.0.0.2", "::1"])
def test_what_is_not_cannot_be_drained(drained: str) -> None:
    with pytest.raises(InvalidValue, match='service "web": drain'):
        read_service(WEB | {"drain": [drained]})


def test_which_addresses_a_host_name_has_only_dns_knows() -> None:
    assert read_service(WEB | {"addresses": ["db.example"], "drain": ["10.9.9.9"]}).drain == ("10.9.9.9",)


def test_source_addresses_need_masquerade() -> None:
    eth0: Document = {"name": "eth0", "role": "outside", "nat_addresses": ["192.0.2.1"]}
    assert read_entity(Interface, eth0 | {"masquerade": True}).nat_addresses == ("192.0.2.1",)
    with pytest.raises(InvalidValue, match="nat_addresses"):
        read_entity(Interface, eth0)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"per": "source"}, "packets_per_second"),
        ({"per": "service", "flows_per_second": 1}, "services"),
        ({"per": "total", "flows_per_second": 1, "burst": 3601}, "burst"),
        ({"per": "total", "packets_per_second": 1, "bytes_per_second": 9000, "burst": 3601}, "burst"),
    ],
)
def test_a_limit_limits_something_for_somebody(fields: Document, field: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_entity(Limit, {"name": "x"} | fields)
    assert caught.value.field == field


def test_the_name_of_a_listener_is_what_it_is() -> None:
    fields: Document = {"kind": "dns", "bind": "[2001:db8::1]:53"}
    made = read_entity(ApplianceListener, fields)
    assert made.name == "dns@[2001:db8::1]:53"
    assert read_entity(ApplianceListener, fields | {"name": made.name}) == made
    with pytest.raises(InvalidValue, match='listener "other": name'):
        read_entity(ApplianceListener, fields | {"name": "other"})
