"""Where logs may go."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from marchproxy.model.collector import (
    Collector,
    parse_certificates,
    parse_ipfix,
    parse_log_url,
    parse_syslog,
)
from marchproxy.model.errors import InvalidValue
from tests.telemetry.logs.certificates import Authority


@pytest.mark.parametrize(
    ("text", "collector"),
    [
        ("udp://192.0.2.5:514", Collector("udp", ip_address("192.0.2.5"), 514)),
        (" TCP://[2001:DB8::5]:601 ", Collector("tcp", ip_address("2001:db8::5"), 601)),
        ("tls://Logs.Example:6514", Collector("tls", "logs.example", 6514)),
    ],
)
def test_what_syslog_goes_to(text: str, collector: Collector) -> None:
    assert parse_syslog(text) == collector
    assert parse_syslog(str(collector)) == collector


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.5:514",
        "udp:192.0.2.5:514",
        "udp://",
        "udp://192.0.2.5",
        "udp://192.0.2.5:",
        "udp://:514",
        "http://a.example:1",
        "udp://2001:db8::5:514",
        "udp://[192.0.2.5]:514",
        "udp://a b:514",
        "udp://1.2.3:514",
        "udp://a.example:0",
        "udp://a.example:65536",
        "udp://a.example:514/x",
        "udp://u@a.example:514",
    ],
)
def test_what_it_does_not(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_syslog(text)


def test_ipfix_has_no_tls() -> None:
    assert parse_ipfix("tcp://192.0.2.5:4739").transport == "tcp"
    with pytest.raises(InvalidValue):
        parse_ipfix("tls://192.0.2.5:4739")


@pytest.mark.parametrize("text", ["https://l.example", "http://[::1]:8088/a?b=c", " https://l.example/ "])
def test_where_batches_go(text: str) -> None:
    assert parse_log_url(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "l.example",
        "ftp://l.example/",
        "https://",
        "https://u:p@l.example/",
        "https://l.example/#x",
        "https://l.example/a b",
        "https://l.example:0/",
        "https://l.example:x/",
        "https://ü.example/",
        "https://l.example/\nx",
        "https://l.example/" + "x" * 1024,
        "https://[::1/",
    ],
)
def test_where_they_do_not(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_log_url(text)


def test_certificates_are_kept_without_what_stands_around_them(tmp_path: Path) -> None:
    own, other = Authority(tmp_path / "a").certificate, Authority(tmp_path / "b").certificate
    assert parse_certificates(f"the first\n{own}\nand another\n{other}") == own + other
    assert parse_certificates("") == ""


@pytest.mark.parametrize(
    "text", ["nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ü"]
)
def test_what_is_no_certificate(text: str) -> None:
    with pytest.raises(InvalidValue, match="syslog_ca"):
        parse_certificates(text)
