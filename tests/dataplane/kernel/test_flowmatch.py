"""flowmatch: services of packed addresses. That filters hold as they do for records is in test_flowscan."""

from ipaddress import ip_address

import pytest

from marchproxy.dataplane.kernel import flowmatch, halves, layouts
from marchproxy.dataplane.kernel.flowmatch import PackedServices
from marchproxy.dataplane.kernel.names import MappingNames
from marchproxy.dataplane.kernel.tunnels import Tunnel
from marchproxy.dataplane.naming import ServiceNames
from tests.dataplane.kernel.conversations import Conversation
from tests.dataplane.kernel.fakes import FakeMap
from tests.dataplane.plans import backend, listener, plan, rule


def _packed(text: str) -> bytes:
    return layouts.pack_address(ip_address(text))


def _services() -> PackedServices:
    served = plan(
        listener(80, rule(backend(8080, "10.2.0.2"), sources=("clients",))),
        sources={"clients": "10.0.0.0/24"},
    )
    names = MappingNames(FakeMap("mapping_names", value_size=128))
    return PackedServices(names, ServiceNames(served), {5: Tunnel("shop/laptops")})


def test_services_of_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    services, client, stranger = _services(), _packed("10.0.0.7"), _packed("192.0.2.7")
    # So few that they are forgotten between.
    monkeypatch.setattr(flowmatch, "_MOST", 1)
    for _ in range(2):
        assert services.claimed(client, 0) == "clients"
        assert services.claimed(stranger, 0) == ""
        assert services.reached(stranger, 0, _packed("10.2.0.2"), layouts.pack_port(8080)) == "web"
        assert services.reached(client, 0, _packed("10.2.0.3"), layouts.pack_port(8080)) == "clients"


@pytest.mark.parametrize(
    ("splice", "id", "service"), [(1, 5, "shop/laptops"), (1, 6, "clients"), (0, 5, "clients")]
)
def test_who_opened_a_tunnel_is_known(splice: int, id: int, service: str) -> None:
    each = Conversation(splice=splice, id=id)
    for raw_key, raw in ((each.key, each.entry), (each.reply_key, each.reply)):
        assert _services().source(raw_key, halves.HALF.unpack(raw)) == service
