"""What records say about themselves."""

import pytest

from marchproxy.telemetry.logs.records import LogClass, Severity
from tests.telemetry.logs.made import denied, ended, ended6, message


@pytest.mark.parametrize(("protocol", "number"), [("tcp", 6), ("udp", 17), ("icmp", 1), ("47", 47)])
def test_protocols_have_their_numbers(protocol: str, number: int) -> None:
    assert ended(protocol=protocol).protocol_number == number


def test_icmp_of_ipv6_is_another_protocol() -> None:
    assert ended6(protocol="icmp").protocol_number == 58


def test_refusals_are_more_severe_than_flows() -> None:
    assert (denied().severity, ended().severity) == (Severity.NOTICE, Severity.INFO)


def test_messages_are_for_finding_faults() -> None:
    assert message().classes == {LogClass.DEBUG}
