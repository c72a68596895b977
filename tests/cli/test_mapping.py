"""`marchproxy mapping`, as an operator uses it."""

import json

import pytest

from tests.cli.console import Console

REQUESTS: dict[str, object] = {
    "connect_timeout": None,
    "response_timeout": None,
    "idle_timeout": None,
    "retry_on": [],
    "retry_budget": 20,
    "eject_after": 5,
    "eject_for": 10,
    "eject_most": 50,
    "max_requests": 0,
    "max_waiting": 0,
    "limit_requests": None,
    "limit_burst": None,
    "limit_per": "source",
    "client_ca": "",
    "client_crl": "",
    "client_names": [],
    "trace": False,
    "mirror": None,
    "early_data": False,
}
CW = {
    **REQUESTS,
    "name": "cw",
    "cluster": "default",
    "sources": ["clients"],
    "destinations": ["web"],
    "protocols": ["tcp"],
    "ports": "",
    "listen": "10.1.0.1:80",
    "priority": 100,
    "action": "allow",
    "host": None,
    "path_prefix": None,
    "path": None,
    "methods": [],
    "headers": [],
    "query": [],
    "auth_required": False,
    "expires": None,
    "audit": False,
    "balance": "maglev",
    "on_expiry": "keep",
    "sni": False,
    "sni_missing": "deny",
    "tls": None,
    "proxy_from": [],
    "send_proxy": "none",
    "weights": [],
    "sticky": False,
    "redirect": None,
    "redirect_status": 308,
    "rewrite_prefix": None,
    "rewrite_host": None,
    "request_headers": [],
    "response_headers": [],
    "description": "",
}


def test_every_flag_reaches_its_field(site: Console) -> None:
    added = site.ok(
        *("mapping", "add", "m", "--from", "clients,external", "--to", "web", "--protocol", "https,http"),
        *("--ports", "443,8000-8100", "--listen", "[fd00::1]:443", "--host", "*.example.com"),
        *("--path-prefix", "/api", "--priority", "5", "--action", "deny", "--auth-required"),
        *("--expires", "2031-05-06T07:08:09+02:00", "--description", "text", "--audit", "on"),
        *("--balance", "least-connections", "--on-expiry", "grace:10m", "--sni", "--without-sni", "address"),
        *("--method", "post,get", "--header", "X-Env: a, b", "--header", "!X-Old"),
        *("--query", "v=2", "--query", "debug", "--output", "json"),
    ).json
    assert added == {
        **REQUESTS,
        "name": "m",
        "cluster": "default",
        "sources": ["clients", "external"],
        "destinations": ["web"],
        "protocols": ["http", "https"],
        "ports": "443,8000-8100",
        "listen": "[fd00::1]:443",
        "priority": 5,
        "action": "deny",
        "host": "*.example.com",
        "path_prefix": "/api",
        "path": None,
        "methods": ["GET", "POST"],
        "headers": ["!x-old", "x-env: a, b"],
        "query": ["debug", "v=2"],
        "auth_required": True,
        "expires": "2031-05-06T05:08:09Z",
        "audit": True,
        "balance": "least-connections",
        "on_expiry": "grace:600",
        "sni": True,
        "sni_missing": "address",
        "tls": None,
        "proxy_from": [],
        "send_proxy": "none",
        "weights": [],
        "sticky": False,
        "redirect": None,
        "redirect_status": 308,
        "rewrite_prefix": None,
        "rewrite_host": None,
        "request_headers": [],
        "response_headers": [],
        "description": "text",
    }


def test_who_says_who_its_client_is_and_who_is_told(site: Console) -> None:
    added = site.ok(
        *("mapping", "add", "m", "--from", "clients", "--to", "web", "--protocol", "tcp"),
        *("--listen", "10.1.0.1:81", "--proxy-from", "10.1.0.5", "--proxy-from", "fd01::/64"),
        *("--send-proxy", "v2", "--output", "json"),
    ).json
    assert (added["proxy_from"], added["send_proxy"]) == (["10.1.0.5", "fd01::/64"], "v2")
    assert site("mapping", "set", "m", "--send-proxy", "v3").code == 5
    assert site.ok("mapping", "set", "m", "--proxy-from", "", "--output", "json").json["proxy_from"] == []


def test_what_is_said_about_requests(site: Console) -> None:
    site.ok("service", "add", "lab", "--address", "10.9.0.1", "--port", "80")
    added = site.ok(
        *("mapping", "add", "m", "--from", "clients", "--to", "web", "--protocol", "http"),
        *("--listen", "10.1.0.1:8080", "--connect-timeout", "2s", "--response-timeout", "10m"),
        *("--idle-timeout", "30", "--retry", "503,reset", "--retry", "502", "--retry-budget", "50"),
        *("--eject-after", "3", "--eject-for", "1m", "--eject-most", "34", "--max-requests", "200"),
        *("--max-waiting", "100", "--limit-requests", "10/min", "--limit-burst", "3", "--limit-per", "token"),
        *("--trace", "--mirror", "lab=25"),
        *("--output", "json"),
    ).json
    assert {name: added[name] for name in REQUESTS} == {
        "connect_timeout": 2,
        "response_timeout": 600,
        "idle_timeout": 30,
        "retry_on": ["reset", "502", "503"],
        "retry_budget": 50,
        "eject_after": 3,
        "eject_for": 60,
        "eject_most": 34,
        "max_requests": 200,
        "max_waiting": 100,
        "limit_requests": "10/m",
        "limit_burst": 3,
        "limit_per": "token",
        "client_ca": "",
        "client_crl": "",
        "client_names": [],
        "trace": True,
        "mirror": "lab=25",
        "early_data": False,
    }
    assert site("service", "remove", "lab", "--yes").code == 4
    assert "mirror" in site.ok("mapping", "show", "m").out


def test_what_becomes_of_requests_is_said_by_flags(site: Console) -> None:
    flags = ("--from", "clients", "--protocol", "http", "--listen", "10.1.0.1:8080")
    added = site.ok(
        *("mapping", "add", "app", *flags, "--to", "web", "--path-prefix", "/api", "--rewrite-prefix", "/v2"),
        *("--rewrite-host", "App.internal", "--request-header", "set X-Env prod, or not"),
        *("--request-header", "remove Cookie", "--response-header", "add Vary Accept"),
    )
    assert not added.out
    shown = site.ok("mapping", "show", "app", "--output", "json").json
    assert (shown["rewrite_prefix"], shown["rewrite_host"]) == ("/v2", "app.internal")
    assert shown["request_headers"] == ["set x-env prod, or not", "remove cookie"]
    assert shown["response_headers"] == ["add vary Accept"]
    site.ok("mapping", "add", "away", *flags, "--redirect", "https://{host}", "--redirect-status", "301")
    shown = site.ok("mapping", "show", "away", "--output", "json").json
    assert (shown["redirect"], shown["redirect_status"]) == ("https://{host}", 301)
    assert shown["destinations"] == []
    whole = site.ok("export").out
    site.ok("apply", "-f", site.write("same.json", json.loads(whole)), "--yes")
    assert site.ok("export").out == whole


def test_lists_may_be_repeated_flags(site: Console) -> None:
    flags = "--from clients --from web --to web --protocol tcp --protocol udp --ports 1 --ports 3-5"
    added = site.ok("mapping", "add", "m", *flags.split(), "--output", "json").json
    assert (added["sources"], added["protocols"], added["ports"]) == (
        ["clients", "web"],
        ["tcp", "udp"],
        "1,3-5",
    )


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        (["--action", "deny"], {"action": "deny"}),
        (["--ports", "443"], {"ports": "443"}),
        (["--listen", ""], {"listen": None}),
        (["--to", "web,clients"], {"destinations": ["clients", "web"]}),
        (["--auth-required"], {"auth_required": True}),
        (["--priority", "7"], {"priority": 7}),
        (["--audit", "on"], {"audit": True}),
        (["--audit", "off"], {}),
        (["--audit", ""], {}),
        (["--balance", "source"], {"balance": "source"}),
        (
            ["--to", "web=90,clients=10"],
            {"destinations": ["clients", "web"], "weights": ["clients=10", "web=90"]},
        ),
    ],
)
def test_set_changes_what_is_given_and_nothing_else(
    site: Console, flags: list[str], changed: dict[str, object]
) -> None:
    assert site.ok("mapping", "set", "cw", *flags, "--output", "json").json == CW | changed
    assert site.ok("mapping", "show", "cw", "--output", "json").json == CW | changed


def test_defaults_come_back_with_an_empty_value(site: Console) -> None:
    site.ok("mapping", "set", "cw", "--priority", "7", "--expires", "2031-01-01T00:00:00Z", "--ports", "80")
    cleared = site.ok(
        "mapping", "set", "cw", "--priority", "", "--expires", "", "--ports", "", "--output", "json"
    )
    assert cleared.json == CW


def test_an_expiry_in_the_past_is_stored_with_a_warning(site: Console) -> None:
    flags = ("--from", "clients", "--to", "web", "--protocol", "tcp", "--expires", "2020-01-01T00:00:00Z")
    added = site.ok("mapping", "add", "old", *flags)
    assert "warning: mapping old: expired at 2020-01-01T00:00:00Z and matches nothing" in added.err
    assert "expired" not in site.ok("mapping", "set", "old", "--description", "x").err
    assert "expired" not in site.ok("mapping", "set", "cw", "--expires", "2999-01-01T00:00:00Z").err
    assert "expired" in site.ok("mapping", "set", "cw", "--expires", "2020-01-01T00:00:00Z").err


def test_list_is_in_the_order_in_which_they_are_tried(site: Console) -> None:
    flags = ["--from", "clients", "--to", "web", "--protocol", "tcp", "--listen", "10.1.0.1:80"]
    site.ok("mapping", "add", "late", *flags, "--priority", "200")
    site.ok("mapping", "add", "zz-deny", *flags, "--action", "deny")
    site.ok("mapping", "add", "first", *flags, "--priority", "1")
    rows = site.ok("mapping", "list", "--output", "json").json
    assert [row["name"] for row in rows] == ["first", "zz-deny", "cw", "late"]


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        ("--from nobody --to web --protocol tcp", 3, "'nobody'"),
        ("--from collection:none --to web --protocol tcp", 3, "'none'"),
        ("--from clients --to web --protocol sctp", 5, "'sctp'"),
        ("--from clients --to web --protocol icmp --ports 1", 5, "ICMP has none"),
        ("--from clients --to web --protocol tcp --ports 90-80", 5, "80-90"),
        ("--from clients --to web --protocol tcp --ports 0", 5, "1 to 65535"),
        ("--from clients --to web --protocol tcp --listen 80", 5, "ADDR:PORT"),
        ("--from clients --to web --protocol tcp --priority soon", 5, "0 to 65535"),
        ("--from clients --to web --protocol tcp --expires tomorrow", 5, "RFC 3339"),
        ("--from clients --to web --protocol tcp --action maybe", 5, "allow, deny"),
        ("--from clients --to web --protocol tcp --host 10.0.0.1", 5, "host name"),
        ("--from clients --to web --protocol tcp --listen 10.1.0.1:22", 5, "management"),
        ("--from clients --to web --protocol tcp --audit maybe", 5, "on or off"),
        ("--from clients --to web --protocol tcp --balance best", 5, "round-robin"),
        ("--from clients --to web --protocol icmp --listen 10.1.0.1:80", 5, "listen: '10.1.0.1:80' is not"),
        ("--from clients --to web", 2, "--protocol"),
        ("--from clients --protocol tcp", 2, "--to"),
        ("--from clients --to web=1,clients --protocol tcp --listen *:81", 5, "one for each destination"),
        ("--from clients --to web=0 --protocol tcp --listen *:81", 5, "one above 0"),
        ("--from clients --to web=x --protocol tcp --listen *:81", 5, "such as shop=90"),
        ("--from clients --to web=1 --protocol tcp", 5, "none without listen"),
        ("--from clients --to all=1 --protocol tcp --listen *:81", 5, "mean everyone"),
        (
            "--from clients --to web --protocol tcp --listen *:81 --sticky",
            5,
            "http, https or grpc with sticky",
        ),
        ("--from clients --to web --protocol tcp --method GET", 5, "http, https or grpc with a method"),
        ("--from clients --to web --protocol http --path /a --path-prefix /b", 5, "the whole path"),
        ("--from clients --to web --protocol http --header Host:a", 5, "other than Host"),
        ("--from clients --to web --protocol http --redirect https://a", 5, "HTTP is not read"),
        (
            "--from clients --to web --protocol http --listen *:8081 --redirect https://a",
            5,
            "nothing goes there",
        ),
        ("--from clients --protocol http --listen *:8081 --redirect nowhere", 5, "a URL such as"),
        ("--from clients --protocol http --listen *:8081 --redirect /a --redirect-status 304", 5, "303, 307"),
        (
            "--from clients --to web --protocol http --listen *:8081 --rewrite-host a --action deny",
            5,
            "denies",
        ),
        ("--to web --protocol tcp", 2, "--from"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(site: Console, flags: str, code: int, says: str) -> None:
    before = site.ok("export").out
    result = site("mapping", "add", "m", *flags.split())
    assert (result.code, result.out) == (code, "")
    assert says in result.err
    assert site.ok("export").out == before


def test_a_range_of_ports_is_listened_on_and_shown(site: Console) -> None:
    words = ("--from", "clients", "--to", "web", "--protocol", "tcp", "--listen", "10.1.0.1:9000-9499")
    site.ok("mapping", "add", "many", *words)
    assert site.ok("mapping", "show", "many", "--output", "json").json["listen"] == "10.1.0.1:9000-9499"
    site.ok("mapping", "set", "many", "--listen", "*:9000-9000")
    assert site.ok("mapping", "show", "many", "--output", "json").json["listen"] == "*:9000"
