"""Syslog messages, held to the grammar of RFC 5424 section 6."""

import os
import re
from ipaddress import ip_address
from typing import Any

import pytest

from marchproxy.model.reason import Reason, Tier, Verdict
from marchproxy.telemetry.logs.records import Carried, Happening, LogClass, Record, Severity
from marchproxy.telemetry.logs.rfc5424 import LONGEST, SyslogEncoder
from tests.telemetry.logs.made import BOTH, NOON, asked, denied, ended, ended6, message

EVERY = frozenset(LogClass)
NAME = r"[!#-<>-\\^-~]{1,32}"
"""SD-NAME: printable ASCII but for `=`, blank, `]` and `"`."""
PARAM = rf' ({NAME})="((?:[^"\\\]]|\\["\\\]]|\\[^"\\\]])*)"'
ELEMENT = re.compile(rf"\[({NAME})((?:{PARAM})*)\]")
HEADER = re.compile(
    r"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128})"
    r" ([!-~]{1,32}) "
)


def encoder(classes: frozenset[LogClass] = EVERY, *, counted: bool = False) -> SyslogEncoder:
    return SyslogEncoder(classes, 32473, counted=counted, host="box.example")


def read(raw: bytes) -> tuple[int, str, str, dict[str, str], str]:
    """Priority, kind, SD-ID, parameters and text; fails for what the grammar does not have."""
    text = raw.decode()
    head = HEADER.match(text)
    assert head, text
    assert head[4] == "marchproxy"
    assert head[5] == str(os.getpid())
    data = ELEMENT.match(text, head.end())
    assert data, text
    rest = text[data.end() :]
    assert rest.startswith(" ")
    values = {name: re.sub(r'\\(["\\\]])', r"\1", value) for name, value in re.findall(PARAM, data[2])}
    return int(head[1]), head[6], data[1], values, rest[1:]


def test_a_flow_is_a_message_with_all_its_fields() -> None:
    raw = encoder().message(ended(name="db.example"))
    assert raw == (
        b"<134>1 2027-01-15T08:00:00.250Z box.example marchproxy %d flow-end [flow@32473"
        b' class="netflow" id="4711" source="10.1.0.2" source_port="40001" destination="10.1.0.1"'
        b' destination_port="80" protocol="tcp" tier="tc" verdict="allow" reason="CLOSED" revision="3"'
        b' cluster="default" mapping="default/web" source_service="default/clients"'
        b' destination_service="default/web" name="db.example" interface="eth0" backend="10.2.0.3"'
        b' backend_port="8080" packets_sent="10" bytes_sent="1000" packets_received="20"'
        b' bytes_received="30000" duration="2.500"]'
        b" flow-end tcp 10.1.0.2:40001 to 10.1.0.1:80 (db.example): CLOSED by default/web" % os.getpid()
    )


def test_a_refusal_has_no_fields_that_it_knows_nothing_of() -> None:
    priority, kind, element, values, text = read(encoder().message(denied()))
    assert (priority, kind, element) == (16 * 8 + 5, "denied", "flow@32473")
    assert values["count"] == "3"
    assert not values.keys() & {"id", "mapping", "destination_service", "backend", "duration", "name"}
    assert text == "denied tcp 10.1.0.2:40001 to 10.1.0.1:80: NO_MAPPING"


def test_what_admission_says_is_of_class_auth_where_that_is_switched_on() -> None:
    record = denied(classes=BOTH, reason=Reason.AUTH_INVALID, tier=Tier.SOCKETS)
    priority, _, _, values, _ = read(encoder().message(record))
    assert (priority, values["class"]) == (10 * 8 + 5, "auth")
    priority, _, _, values, _ = read(encoder(frozenset({LogClass.NETFLOW})).message(record))
    assert (priority, values["class"]) == (16 * 8 + 5, "netflow")


@pytest.mark.parametrize(
    "hostile",
    [
        '"',
        "\\",
        "]",
        '\\"]',
        'x"] fake [y@1 a="b',
        "a\nb",
        "\x00\x7f\x85",
        "grüße",
        "日本\\]",
        "\ufeff",
        "a\\nb",
    ],
)
def test_whatever_a_client_names_stays_inside_its_value(hostile: str) -> None:
    record = denied(name=hostile)
    _, _, element, values, _ = read(encoder().message(record))
    cleaned = re.sub(r"[\x00-\x1f\x7f-\x9f]", "?", hostile)
    assert element == "flow@32473"
    assert values["name"] == cleaned
    assert b"\n" not in encoder().message(record)


def test_only_text_that_is_not_ascii_has_a_byte_order_mark() -> None:
    """RFC 5424 section 6.4: MSG-UTF8 begins with one, MSG-ANY need not."""
    plain, other = encoder().message(ended(name="a.example")), encoder().message(ended(name="grüße.example"))
    assert b"\xef\xbb\xbf" not in plain
    assert other.count(b"\xef\xbb\xbf") == 1
    assert b"] \xef\xbb\xbfflow-end tcp" in other
    assert 'name="grüße.example"'.encode() in other


def test_ipv6_addresses_stand_in_brackets_before_ports() -> None:
    text = read(encoder().message(ended6()))[4]
    assert text == "flow-end tcp [fd01::2]:40001 to [fd01::1]:80: CLOSED by default/web"


def test_what_records_repeat_is_told_of_each_as_it_is() -> None:
    """One after the other and anew: nothing of one record is in another."""
    backend = Carried(ip_address("10.2.0.4"), 8081, NOON - 1, 1, 2, 3, 4)
    others: list[dict[str, Any]] = [
        {},
        {"happening": Happening.START},
        {"classes": BOTH},
        {"time": NOON + 86400, "id": 0},
        {"source": ip_address("fd01::9"), "source_port": 1},
        {"destination": ip_address("10.1.0.9")},
        {"destination_port": 81},
        {"protocol": "udp"},
        {"tier": Tier.XDP},
        {"verdict": Verdict.AUDIT},
        {"reason": Reason.RESET},
        {"revision": 4},
        {"cluster": "shop"},
        {"mapping": "default/other"},
        {"source_service": ""},
        {"destination_service": "default/b"},
        {"name": "grüße"},
        {"interface": ""},
        {"carried": backend},
        {"carried": None, "count": 9},
    ]
    records = [ended(**fields) for fields in others]
    one = encoder()
    assert [one.message(each) for each in records * 2] == [encoder().message(each) for each in records * 2]
    assert len({one.message(each) for each in records}) == len(records)


def test_a_message_is_of_class_debug() -> None:
    priority, kind, element, values, text = read(encoder().message(message("a\nb")))
    assert (priority, kind, element) == (16 * 8 + 4, "backend", "event@32473")
    assert values == {"class": "debug", "service": "default/web"}
    assert text == "a b"


@pytest.mark.parametrize("letter", ["x", "ü", "日"])
def test_long_texts_are_cut_between_characters(letter: str) -> None:
    raw = encoder().message(message(letter * 5000))
    assert LONGEST - 3 <= len(raw) <= LONGEST
    assert read(raw)[4].removeprefix("\ufeff").strip(letter) == ""


def test_streams_count_octets() -> None:
    """RFC 6587 section 3.4.1: MSG-LEN SP SYSLOG-MSG; octets, not characters."""
    records: list[Record] = [ended(name="grüße.example"), denied(), message()]
    stream = b"".join(raw for raw, _ in encoder(counted=True).encode(records))
    found = []
    while stream:
        length, _, rest = stream.partition(b" ")
        found.append(rest[: int(length)])
        stream = rest[int(length) :]
    assert found == [encoder().message(record) for record in records]


def test_every_severity_and_happening_has_its_number() -> None:
    assert read(encoder().message(message(severity=Severity.DEBUG)))[0] == 16 * 8 + 7
    for happening in Happening:
        made = denied(happening=happening) if happening.refuses else ended(happening=happening)
        assert read(encoder().message(made))[1] == happening.value


def test_a_machine_without_a_proper_name_has_the_nil_value() -> None:
    assert b" - marchproxy " in SyslogEncoder(EVERY, 1, counted=False, host="ü ").message(ended())


def test_moments_are_told_apart_over_seconds() -> None:
    own = encoder()
    stamps = [own.message(ended(time=time)).split()[1][17:] for time in (1.0, 1.5, 2.001, 2.9999, 1.5)]
    assert stamps == [b"01.000Z", b"01.500Z", b"02.001Z", b"02.999Z", b"01.500Z"]


def test_a_request_is_a_message_of_its_own() -> None:
    encoder = SyslogEncoder(frozenset({LogClass.ACCESS}), 32473, counted=False, host="box")
    text = encoder.message(asked(path='/a"]b' + "x" * 3000)).decode()
    assert text.startswith("<134>1 2027-01-15T08:00:00.250Z box marchproxy ")
    assert ' request [request@32473 class="access" request_id="c0ffee-1" id="4711"' in text
    assert ' path="/a\\"\\]bxxx' in text
    assert ' status="200"' in text
    assert ' took_ms="12.500"' in text
    assert len(text) <= 2048
