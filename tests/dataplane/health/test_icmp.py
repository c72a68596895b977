"""icmp: requests with right checksums, and no answer taken for another's."""

import pytest

from marchproxy.dataplane.health.icmp import echo_request, is_reply, without_ip

PAYLOAD = bytes(range(24))


def checksum(message: bytes) -> int:
    """Over a message with its checksum in place: 0xffff if that is right (RFC 1071)."""
    words = [int.from_bytes(message[at : at + 2].ljust(2, b"\0")) for at in range(0, len(message), 2)]
    return (sum(words) - 1) % 0xFFFF + 1


@pytest.mark.parametrize("payload", [PAYLOAD, PAYLOAD[:-1], b"\xff" * 24, b""])
def test_request_over_ipv4(payload: bytes) -> None:
    message = echo_request(4, 0xABCD, payload)
    assert (message[0], message[1], message[4:6], message[8:]) == (8, 0, b"\xab\xcd", payload)
    assert checksum(message) == 0xFFFF


def test_the_kernel_sums_up_ipv6() -> None:
    assert echo_request(6, 1, PAYLOAD)[:8] == bytes((128, 0, 0, 0, 0, 1, 0, 1))


@pytest.mark.parametrize(("version", "reply"), [(4, 0), (6, 129)])
def test_the_answer_is_told_by_its_payload(version: int, reply: int) -> None:
    def answer(kind: int, payload: bytes = PAYLOAD, code: int = 0) -> bytes:
        return bytes((kind, code, 9, 9, 7, 7, 0, 1)) + payload

    assert is_reply(version, answer(reply), PAYLOAD)
    for other in (
        echo_request(version, 1, PAYLOAD),
        answer(reply, PAYLOAD[:-1] + b"x"),
        answer(reply, PAYLOAD[:-1]),
        answer(reply, PAYLOAD, 1),
        answer(3),
        b"",
        b"\0" * 7,
    ):
        assert not is_reply(version, other, PAYLOAD)


def test_the_ip_header_is_as_long_as_it_says() -> None:
    assert without_ip(bytes((0x45,)) + bytes(19) + b"icmp") == b"icmp"
    assert without_ip(bytes((0x46,)) + bytes(23) + b"icmp") == b"icmp"
    assert without_ip(b"") == b""
