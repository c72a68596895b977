import socket

import pytest

from marchproxy.model.errors import InvalidValue
from marchproxy.model.protocol import Protocol, Transport, parse_protocol, parse_protocols


def test_every_protocol_but_icmp_runs_over_something_with_ports() -> None:
    assert {protocol for protocol in Protocol if protocol.transport is None} == {Protocol.ICMP}
    udp = {protocol for protocol in Protocol if protocol.transport is Transport.UDP}
    assert udp == {Protocol.UDP, Protocol.QUIC}


def test_transport_numbers_are_iana_s() -> None:
    assert (Transport.TCP.number, Transport.UDP.number) == (socket.IPPROTO_TCP, socket.IPPROTO_UDP)


def test_lists_fold_and_follow_the_enum() -> None:
    assert parse_protocols("UDP, tcp,udp") == (Protocol.TCP, Protocol.UDP)
    assert [parse_protocol(name.upper()) for name in Protocol] == list(Protocol)


@pytest.mark.parametrize("text", ["", "sctp", "tcp udp", "tcp,", "6"])
def test_refuses_and_lists_what_there_is(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_protocols(text)
    assert "tcp, udp, icmp, http, https, grpc, quic" in caught.value.hint
