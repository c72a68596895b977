"""Every way to write a block list, and every way to get it wrong."""

import random
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy.model import blockfile
from marchproxy.model.blockfile import SHOWN, Reading, TooManyEntries, read_blocks
from marchproxy.model.blocklist import Note

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def reading(text: str) -> Reading:
    return read_blocks(text.splitlines(keepends=True), NOW)


def texts(text: str) -> list[str]:
    found = reading(text)
    assert found.bad == ()
    return [entry for entry, _ in found.contents.texts()]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("10.0.0.1\n", ["10.0.0.1"]),
        ("  10.0.0.0/8  \r\n", ["10.0.0.0/8"]),
        ("# all\n; of\n// this\n\n", []),
        ("10.0.0.1 # why\n10.0.0.3;SBL1\n10.0.0.5 // so\n", ["10.0.0.1", "10.0.0.3", "10.0.0.5"]),
        ("10.0.0.1-10.0.0.3\n", ["10.0.0.1", "10.0.0.2/31"]),
        ("10.0.0.0 - 10.0.0.255\n", ["10.0.0.0/24"]),
        ("2001:db8::-2001:db8::1\n", ["2001:db8::/127"]),
        ("2001:DB8::/32\n::1\n", ["::1", "2001:db8::/32"]),
        ("0.0.0.0/0\n::/0\n", ["0.0.0.0/0", "::/0"]),
        ("Ads.Example.COM.\n*.bad.example\n", ["*.bad.example", "ads.example.com"]),
        ("0.0.0.0 ads.example b.example\n127.0.0.1 x.it # y\n", ["ads.example", "b.example", "x.it"]),
        ("10.0.0.9\n10.0.0.0/24\n10.0.0.9/32\n", ["10.0.0.0/24"]),
        (
            "create bad hash:net family inet hashsize 1024 maxelem 65536\nadd bad 10.1.0.0/16\n"
            "add bad 10.2.0.1-10.2.0.2\nadd six 2001:db8::/48\n",
            ["10.1.0.0/16", "10.2.0.1", "10.2.0.2", "2001:db8::/48"],
        ),
        (
            "table inet filter {\n\tset blocked {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\tauto-merge\n"
            "\t\telements = { 10.0.0.1, 10.1.0.0/16,\n\t\t\t     10.2.0.0-10.2.0.255 }\n\t}\n}\n",
            ["10.0.0.1", "10.1.0.0/16", "10.2.0.0/24"],
        ),
        ("add element inet filter blocked { 10.0.0.1, 2001:db8::1 }\n", ["10.0.0.1", "2001:db8::1"]),
        ("elements = {\n10.0.0.1,\n10.0.0.2\n}\n10.0.0.7\n", ["10.0.0.1", "10.0.0.2", "10.0.0.7"]),
        ("score,IP,country\n5,10.0.0.1,NL\n", ["10.0.0.1"]),
        ("10.0.0.1,scanner\n10.0.0.2,\n", ["10.0.0.1", "10.0.0.2"]),
        ("1,10.0.0.1\n2,10.0.0.2\n", ["10.0.0.1", "10.0.0.2"]),
        ("network\treason\n10.0.0.0/8\tall of it\n", ["10.0.0.0/8"]),
    ],
)  # fmt: skip
def test_what_files_say(text: str, entries: list[str]) -> None:
    assert texts(text) == entries


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("address,reason,expires\n10.0.0.1,a scanner,2026-01-01T01:00:00Z\n", Note("a scanner", LATER)),
        ("expires,reason,cidr\n2026-01-01T02:00:00+01:00,,10.0.0.1\n", Note("", LATER)),
        ('10.0.0.1,"scans, a lot"\n', Note("scans, a lot")),
        ('add bad 10.0.0.1 timeout 3600 comment "a scanner"\n', Note("a scanner", LATER)),
        ("add bad 10.0.0.1 timeout 0\n", Note()),
        ("elements = { 10.0.0.1 timeout 2h expires 59m60s }\n", Note("", LATER)),
        ('elements = { 10.0.0.1 comment "scans, a lot" }\n', Note("scans, a lot")),
        ("elements = { 10.0.0.1 counter packets 5 bytes 7 timeout 1h }\n", Note("", LATER)),
    ],
)
def test_what_files_say_about_entries(text: str, note: Note) -> None:
    found = reading(text)
    assert (found.bad, list(found.contents.texts())) == ((), [("10.0.0.1", note)])


@pytest.mark.parametrize(
    "line",
    [
        "10.0.0.300",
        "10.0.0.1/33",
        "10.0.0.1/",
        "10.0.0.1/-1",
        "10.0.0.1/+8",
        "10.0.0.1/8",
        "2001:db8::/129",
        "2001:db8::1/64",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "10.0.0.5-10.0.0.1",
        "10.0.0.1-2001:db8::1",
        "garbage",
        "not a list at all",
        "-.example",
        "\x00\x01\x02",
        "add bad",
        "add bad 10.0.0.1,tcp:80",
        "add bad 10.0.0.0/24 nomatch",
        "add bad 10.0.0.1 timeout soon",
        "add bad 10.0.0.1 timeout \u00b2",
        "add bad 10.0.0.1 timeout 99999999999999",
        "10.0.0.1,x,tomorrow",
        "<html>, <body>",
        "elements = { 10.0.0.1.2 }",
        "elements = { 10.0.0.1 timeout never }",
        "\uff11\uff10.0.0.1",
    ],
)
def test_bad_lines_are_named_and_left_out(line: str) -> None:
    found = reading(f"192.0.2.1\n{line}\n192.0.2.2\n")
    assert [(bad.number, bad.text) for bad in found.bad] == [(2, line)]
    assert found.bad[0].why.startswith("expected ")
    assert [text for text, _ in found.contents.texts()] == ["192.0.2.1", "192.0.2.2"]


def test_many_bad_lines_are_counted() -> None:
    found = reading("rubbish\n" * 1000 + "10.0.0.1\n")
    assert (len(found.bad), found.bad_lines, len(found.contents)) == (SHOWN, 1000, 1)


def test_one_bad_element_of_a_line_leaves_the_others() -> None:
    found = reading("elements = { 10.0.0.1, rubbish, 10.0.0.3 }\n")
    assert (found.bad_lines, len(found.contents)) == (1, 2)


def test_what_has_expired_is_left_out_and_counted() -> None:
    found = reading("ip,expires\n10.0.0.1,2025-12-31T00:00:00Z\n10.0.0.2,2026-01-01T00:00:01Z\n")
    assert (found.expired, found.read, len(found.contents)) == (1, 1, 1)


def test_no_end_of_entries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockfile, "MAX_ENTRIES", 10)
    with pytest.raises(TooManyEntries, match="more than 10 entries by line 11"):
        reading("10.0.0.1\n" * 11)


@given(st.lists(st.text(max_size=60)))
def test_any_text_is_read(lines: list[str]) -> None:
    found = read_blocks(lines, NOW)
    assert found.bad_lines >= len(found.bad)
    assert found.read >= len(found.contents)


def test_random_prefixes_come_out_as_they_went_in() -> None:
    chance = random.Random(7)
    wanted = {
        ip_network((chance.getrandbits(bits) >> (bits - length) << (bits - length), length))
        if bits == 128
        else ip_network((chance.getrandbits(32) >> (32 - length) << (32 - length), length))
        for _ in range(500)
        for bits, length in ((32, chance.randint(20, 32)), (128, chance.randint(40, 128)))
    }
    lines = [f"{prefix}\n" for prefix in wanted]
    held = [ip_network(text) for text, _ in read_blocks(lines, NOW).contents.texts()]
    outermost = {
        prefix
        for prefix in wanted
        if not any(
            prefix != other and prefix.version == other.version and prefix.subnet_of(other)  # type: ignore[arg-type]
            for other in wanted
        )
    }
    assert set(held) == outermost
