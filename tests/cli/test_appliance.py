"""`marchproxy appliance`, as an operator uses it."""

import json

import pytest

from marchproxy.cli.rows import row
from marchproxy.model.appliance import DEFAULT_SETTINGS
from tests.cli.console import Console

DEFAULTS = row(DEFAULT_SETTINGS)


def test_show_has_every_setting(site: Console) -> None:
    assert site.ok("appliance", "show", "--output", "json").json == DEFAULTS
    shown = site.ok("appliance", "show").out
    assert "timeout tcp established  7440\n" in shown
    assert "audit                    no\n" in shown


def test_every_flag_reaches_its_setting(site: Console) -> None:
    changed = {
        "audit": True,
        "refusal": "drop",
        "refusals_per_second": 7,
        "flow_table": 65536,
        "timeout_tcp_established": 86400,
        "timeout_tcp_closing": 10,
        "timeout_tcp_opening": 20,
        "timeout_udp": 120,
        "timeout_udp_unanswered": 5,
        "timeout_icmp": 9,
        "resolvers": ["192.0.2.54", "192.0.2.53:5353"],
        "private_answers": ["*.corp.example", "nas.example"],
        "enterprise_number": 4294967295,
    }
    words = """--audit on --refusal drop --refusals-per-second 7 --flow-table 65536
        --timeout-tcp-established 1d --timeout-tcp-closing 10
        --timeout-tcp-opening 20s --timeout-udp 2m --timeout-udp-unanswered 5
        --timeout-icmp 9s --resolver 192.0.2.54:53 --resolver 192.0.2.53:5353 --private-answer Nas.example
        --private-answer *.corp.example --enterprise-number 4294967295 --output json"""
    assert site.ok("appliance", "set", *words.split()).json == DEFAULTS | changed
    assert site.ok("export").json["settings"] == changed
    assert site.ok("revision", "list", "--output", "json").json[0]["message"] == "set settings"


def test_defaults_come_back_and_leave_no_trace(site: Console) -> None:
    before = site.ok("export").out
    site.ok("appliance", "set", "--timeout-udp", "2m", "--resolver", "192.0.2.53", "--audit", "on")
    site.ok("appliance", "set", "--timeout-udp", "", "--resolver", "", "--audit", "off")
    assert site.ok("export").out == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "nothing to change"),
        (["--audit", "yes"], 5, "audit: 'yes' is not valid"),
        (["--refusal", "silence"], 5, "answer, drop"),
        (["--flow-table", "1000"], 5, "from 1024 to 16777216"),
        (["--refusals-per-second", "0"], 5, "from 1 to 1000000"),
        (["--timeout-udp", "0"], 5, "from 1 to 2592000"),
        (["--timeout-udp", "soon"], 5, "timeout_udp: 'soon' is not valid"),
        (["--resolver", "dns.example"], 5, "DNS server"),
        (["--private-answer", "10.0.0.1"], 5, "host name"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(site: Console, words: list[str], code: int, says: str) -> None:
    result = site("appliance", "set", *words)
    assert result.code == code
    assert says in result.err
    assert site.ok("appliance", "show", "--output", "json").json == DEFAULTS


def test_a_file_that_changes_settings_needs_a_yes(site: Console) -> None:
    file = site.write("own.json", {"settings": {"audit": True}})
    refused = site("apply", "-f", file)
    assert (refused.code, refused.out) == (2, "~ settings\n    audit: - -> yes\n")
    site.ok("apply", "-f", file, "--yes")
    assert site.ok("appliance", "show", "--output", "json").json == DEFAULTS | {"audit": True}


def test_an_export_brings_all_of_it_back(site: Console) -> None:
    empty = site.ok("export").out
    site.ok("appliance", "set", "--audit", "on")
    site.ok("listener", "add", "dns", "--bind", "10.1.0.1:53")
    limit = {"name": "l", "per": "service", "services": ["clients"], "packets_per_second": 9}
    blocks = [{"name": "203.0.113.0/24", "reason": "spam"}]
    site.ok("apply", "-f", "-", "--yes", stdin=json.dumps({"limits": [limit], "blocks": blocks}))
    full = site.ok("export").out
    assert json.loads(full)["limits"] == [limit]
    site.ok("apply", "-f", "-", "--yes", stdin=empty)
    assert site.ok("export").out == empty
    site.ok("apply", "-f", "-", "--yes", stdin=full)
    assert site.ok("export").out == full
    lab = json.loads(site.ok("export", "--cluster", "default").out)
    assert lab.keys() == {"format", "clusters"}


def test_a_service_that_a_limit_names_stays(site: Console) -> None:
    limit = {"name": "l", "per": "service", "services": ["clients", "default/web"], "packets_per_second": 9}
    site.ok("apply", "-f", "-", stdin=json.dumps({"limits": [limit]}))
    site.ok("mapping", "remove", "cw", "--yes")
    result = site("service", "remove", "web", "--yes")
    assert result.code == 4
    assert "service 'web' is in use by limit 'l'" in result.err
    unknown = json.dumps({"limits": [limit | {"services": ["lab/web"]}]})
    result = site("apply", "-f", "-", "--yes", stdin=unknown)
    assert result.code == 3
    assert "service 'lab/web' does not exist" in result.err
