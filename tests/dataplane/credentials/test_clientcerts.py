"""What is read of certificates of clients."""

import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from marchproxy.dataplane.credentials.clientcerts import lapsed, read_peer
from tests.clientcerts import ClientAuthority

OURS = ClientAuthority("ours")


def test_what_cannot_be_read_or_is_over_is_nobody(tmp_path: Path) -> None:
    _, made = OURS.client(tmp_path, "alice")
    raw = made.public_bytes(Encoding.DER)
    assert read_peer(None) is None
    assert read_peer(b"") is None
    assert read_peer(raw[:-9]) is None
    end = made.not_valid_after_utc.timestamp()
    assert read_peer(raw, end - 1) is not None
    assert read_peer(raw, end) is None


def test_fields_are_plain_and_short(tmp_path: Path) -> None:
    _, made = OURS.client(tmp_path, "ü%\n", *(x509.DNSName(f"h{n}.example") for n in range(1000)))
    peer = read_peer(made.public_bytes(Encoding.DER))
    assert peer is not None
    fields = dict(peer.fields)
    assert fields["x-marchproxy-client-subject"] == "CN=%C3%BC%25%0A"
    assert fields["x-marchproxy-client-names"].startswith("dns:h0.example, dns:h1.example")
    assert all(value.isascii() and value.isprintable() and len(value) <= 4096 for value in fields.values())


def test_of_several_lists_the_one_that_ends_first_counts() -> None:
    one, two = ClientAuthority("one"), ClientAuthority("two")
    lists = one.revoking() + two.revoking(days=3)
    day = 86400.0
    assert not lapsed("", 1e12)
    assert not lapsed(lists)
    assert not lapsed(two.revoking(days=3), time.time() + 2 * day)
    assert lapsed(lists, time.time() + 2 * day)
