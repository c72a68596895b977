"""Mappings that look at more of a request, and change it: real clients and servers, as an operator would."""

import json
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from rig import Appliance, Rig
from rig.servers import start_http
from tests.namespace.test_http import curl, status

pytestmark = pytest.mark.requires("root", "netns", "veth", "bpf", "bpffs", commands=["curl"])

LISTEN = ("--protocol", "http", "--listen", "10.1.0.1:8080")
SECURE = ("--protocol", "https", "--listen", "10.1.0.1:8443", "--tls", "www")
MAPPINGS: tuple[tuple[str, ...], ...] = (
    ("web", "--from", "lan", "--to", "web", *LISTEN, "--method", "GET,POST"),
    ("beta", "--from", "lan", "--to", "api", *LISTEN, "--header", "X-Env: beta", "--query", "!old"),
    ("exact", "--from", "lan", "--to", "api", *LISTEN, "--path", "/exact", "--rewrite-prefix", "/status/203"),
    ("no-deletes", "--from", "lan", "--to", "all", *LISTEN, "--method", "DELETE", "--action", "deny",
     "--priority", "10"),
    ("api", "--from", "lan", "--to", "api", *LISTEN, "--path-prefix", "/api", "--rewrite-prefix", "/",
     "--response-header", "set X-Env prod", "--response-header", "remove Server"),
    ("away", "--from", "lan", *LISTEN, "--host", "old.example", "--redirect", "https://{host}:8443{path}"),
    ("both", "--from", "lan", "--to", "web=3,api=1", *LISTEN, "--host", "both.example", "--sticky",
     "--balance", "round-robin"),
    ("secure", "--from", "lan", "--to", "web", *SECURE,
     "--response-header", "set Strict-Transport-Security max-age=31536000"),
)  # fmt: skip


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(clients=1) as built:
        built.server.add_address("eth0", "10.2.0.3/24")
        start_http(built.server, 80, "10.2.0.2")
        start_http(built.server, 80, "10.2.0.3")
        yield built


@pytest.fixture(scope="module")
def appliance(rig: Rig) -> Iterator[Appliance]:
    with Appliance(rig, name="rules") as built:
        built.cli("init")
        for name, role in (("inside0", "inside"), ("outside0", "outside")):
            built.cli("interface", "add", name, "--role", role)
        built.cli("cert", "generate", "www", "--host", "old.example")
        built.cli("service", "add", "lan", "--address", "10.1.0.0/24")
        built.cli("service", "add", "web", "--address", "10.2.0.2", "--port", "80")
        built.cli("service", "add", "api", "--address", "10.2.0.3", "--port", "80")
        for words in MAPPINGS:
            built.cli("mapping", "add", *words)
        built.start()
        yield built


@pytest.mark.parametrize(
    ("url", "words", "expected"),
    [
        ("/", (), "web"),
        ("/", ("--header", "X-Env: beta"), "beta"),
        ("/?old=1", ("--header", "X-Env: beta"), "web"),
        ("/?%6fld", ("--header", "X-Env: beta"), "web"),
        ("/", ("--header", "X-Env: beta", "--header", "X-Env: beta"), "web"),
        ("/api/x", (), "api"),
    ],
)
def test_what_a_request_brings_chooses_the_mapping_and_explain_says_so(
    rig: Rig, appliance: Appliance, url: str, words: tuple[str, ...], expected: str
) -> None:
    server = "10.2.0.2" if expected == "web" else "10.2.0.3"
    assert f"server {server}" in curl(rig.client, f"http://www.example:8080{url}", *words).stdout
    asked = ("explain", "--from", "10.1.0.2", "--url", f"http://www.example:8080{url}", *words)
    told = json.loads(appliance.cli(*asked, "--output", "json").stdout)
    assert told["mapping"] == expected
    assert told["backend"] == f"{server}:80"


def test_methods_that_do_not_fit_are_told_and_banned_ones_cannot_hide(rig: Rig, appliance: Appliance) -> None:
    done = curl(rig.client, "http://www.example:8080/", "--include", "--request", "PUT")
    assert done.stdout.startswith("HTTP/1.1 405 ")
    assert "allow: GET, HEAD, POST\r\n" in done.stdout or "allow: GET, HEAD, POST\n" in done.stdout
    asked = ("explain", "--from", "10.1.0.2", "--url", "http://www.example:8080/", "--method", "PUT")
    assert "the answer is 405" in appliance.cli(*asked, check=False).stdout
    for words in (
        ("--request", "DELETE"),
        ("--request", "delete"),
        ("--request", "POST", "--header", "X-HTTP-Method-Override: DELETE"),
        ("--request", "POST", "--header", "x_http_method_override: delete"),
    ):
        assert status(rig.client, "http://www.example:8080/api", *words) == (403, "DENY_MAPPING")
    assert status(rig.client, "http://www.example:8080/?%5fmethod=DELETE") == (403, "DENY_MAPPING")


def test_requests_and_answers_are_changed(rig: Rig, appliance: Appliance) -> None:
    assert status(rig.client, "http://www.example:8080/api/status/418") == (418, "")
    assert status(rig.client, "http://www.example:8080/exact") == (203, "")
    head = curl(rig.client, "http://www.example:8080/api/status/200", "--include").stdout
    assert "x-env: prod" in head
    assert "\nserver:" not in head.lower()
    asked = ("explain", "--from", "10.1.0.2", "--url", "http://www.example:8080/api/status/418?a=b")
    assert "the backend gets /status/418?a=b" in appliance.cli(*asked).stdout


def test_a_redirect_is_followed_to_where_tls_is_spoken(rig: Rig, appliance: Appliance) -> None:
    url = "http://old.example:8080/x?a=b"
    done = curl(
        *(rig.client, url, "--include", "--location", "--insecure"),
        *("--resolve", "old.example:8443:10.1.0.1"),
    )
    assert "location: https://old.example:8443/x?a=b" in done.stdout
    assert "HTTP/1.1 308 " in done.stdout
    assert re.search("^HTTP/[12.]+ 200 ", done.stdout, re.MULTILINE)
    assert "strict-transport-security: max-age=31536000" in done.stdout


def test_shares_are_kept_and_cookies_lead_back(rig: Rig, appliance: Appliance) -> None:
    url, found = "http://both.example:8080/", Counter[str]()
    cookies = {}
    for _ in range(16):
        done = curl(rig.client, url, "--include")
        server = re.search(r"server (10\.2\.0\.\d)", done.stdout)
        cookie = re.search(r"^set-cookie: (marchproxy-[^;]+);", done.stdout, re.MULTILINE)
        assert server
        assert cookie, done.stdout
        found[server[1]] += 1
        cookies[server[1]] = cookie[1]
    assert len(found) == 2
    appliance.stop()
    appliance.start()
    for server_address, value in cookies.items():
        for _ in range(4):
            done = curl(rig.client, url, "--include", "--cookie", value)
            assert f"server {server_address}" in done.stdout
            assert "set-cookie" not in done.stdout
