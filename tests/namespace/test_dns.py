"""UDP with a real DNS server and a real resolver."""

import pytest

from rig import Appliance, Rig, wait_for

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["dig", "dnsmasq"])


def test_dig_asks_dnsmasq_through_the_appliance(rig: Rig, appliance: Appliance) -> None:
    server = rig.server.popen(
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
         "--listen-address=10.2.0.2", "--bind-interfaces", "--address=/www.example.test/192.0.2.7"]
    )  # fmt: skip
    appliance.cli("service", "add", "dns", "--address", "10.2.0.2", "--port", "53")
    appliance.cli(
        "mapping", "add", "dns", "--from", "clients", "--to", "dns", "--protocol", "tcp,udp",
        "--listen", "10.1.0.1:53",
    )  # fmt: skip

    def answered(*words: str) -> bool:
        asked = ["dig", "+short", "+time=1", "+tries=1", *words, "@10.1.0.1", "www.example.test"]
        return rig.client.run(asked, check=False).stdout.strip() == "192.0.2.7"

    wait_for(answered, "dnsmasq to answer")
    assert answered("+tcp")
    assert server.running
