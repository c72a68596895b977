"""`marchproxy service`, as an operator uses it."""

import pytest

from tests.cli.console import Console

WEB = {
    "name": "web",
    "cluster": "default",
    "addresses": ["10.2.0.10", "10.2.0.11"],
    "port": 8080,
    "protocol": None,
    "collection": None,
    "tags": [],
    "auth": "none",
    "weight": 1,
    "tls": False,
    "tls_ca": "",
    "tls_cert": None,
    "health": "none",
    "health_interval": None,
    "health_timeout": None,
    "health_rise": None,
    "health_fall": None,
    "drain": [],
    "jwt_algorithm": "HS256",
    "jwt_audience": None,
    "jwt_issuer": None,
    "jwt_keys": [],
    "jwks_url": None,
    "description": "",
}
SHOWN = WEB | {"backends": []}
"""Alone it is shown with the state of its backends, as far as somebody looks after them."""


def test_every_flag_reaches_its_field(site: Console) -> None:
    site.ok("cert", "generate", "edge", "--host", "edge.example", "--client")
    added = site.ok(
        *("service", "add", "api", "--address", "10.3.0.1,db.example.com", "--address", "fd00::1"),
        *("--port", "8443", "--protocol", "https", "--auth", "jwt", "--collection", "backends"),
        *("--tag", "a,b", "--tag", "c", "--health", "https:/ok", "--health-interval", "1m", "--weight", "7"),
        *("--health-timeout", "5s", "--health-rise", "2", "--health-fall", "4", "--drain", "10.3.0.1"),
        *(
            "--tls",
            "--tls-cert",
            "edge",
            "--description",
            "the API",
            "--jwt-algorithm",
            "ES256",
            "--jwt-audience",
            "aud",
        ),
        *("--jwt-issuer", "iss", "--jwks", "https://issuer.example/keys", "--output", "json"),
    )
    expected = {
        "name": "api",
        "cluster": "default",
        "addresses": ["10.3.0.1", "fd00::1", "db.example.com"],
        "port": 8443,
        "protocol": "https",
        "collection": "backends",
        "tags": ["a", "b", "c"],
        "auth": "jwt",
        "weight": 7,
        "tls_ca": "",
        "tls_cert": "edge",
        "tls": True,
        "health": "https:/ok",
        "health_interval": 60,
        "health_timeout": 5,
        "health_rise": 2,
        "health_fall": 4,
        "drain": ["10.3.0.1"],
        "jwt_algorithm": "ES256",
        "jwt_audience": "aud",
        "jwt_issuer": "iss",
        "jwt_keys": [],
        "jwks_url": "https://issuer.example/keys",
        "description": "the API",
    }
    assert added.json == expected
    shown = site.ok("service", "show", "api", "--output", "json")
    assert shown.json == expected | {"backends": None}
    assert "no daemon runs" in shown.err


def test_add_says_the_revision_on_stderr_and_nothing_on_stdout(site: Console) -> None:
    result = site.ok("service", "add", "db", "--address", "10.4.0.1")
    assert (result.out, result.err) == ("", "revision 3\n")


def test_list_is_an_array_of_whole_services(site: Console) -> None:
    rows = site.ok("service", "list", "--output", "json").json
    assert [row["name"] for row in rows] == ["clients", "web"]
    assert rows[1] == WEB
    assert rows[0].keys() == WEB.keys()


def test_list_as_a_table_is_aligned(site: Console) -> None:
    title, *lines = site.ok("service", "list").out.splitlines()
    assert title.split()[:3] == ["NAME", "ADDRESSES", "PORT"]
    assert [line.split()[0] for line in lines] == ["clients", "web"]
    assert [line[title.index("ADDRESSES") :].split()[0] for line in lines] == [
        "10.1.0.0/16",
        "10.2.0.10,10.2.0.11",
    ]


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        (["--port", "81"], {"port": 81}),
        (["--port", ""], {"port": None}),
        (["--address", "10.9.0.1"], {"addresses": ["10.9.0.1"]}),
        (["--tag", "x"], {"tags": ["x"]}),
        (["--tls"], {"tls": True}),
        (["--no-tls"], {}),
        (["--health-interval", "2m", "--health-rise", "3"], {"health_interval": 120, "health_rise": 3}),
        (["--drain", "10.2.0.11", "--drain", "10.2.0.10"], {"drain": ["10.2.0.10", "10.2.0.11"]}),
        (["--weight", "3", "--description", "new"], {"weight": 3, "description": "new"}),
    ],
)
def test_set_changes_what_is_given_and_nothing_else(
    site: Console, flags: list[str], changed: dict[str, object]
) -> None:
    assert site.ok("service", "set", "web", *flags, "--output", "json").json == WEB | changed


def test_an_empty_list_clears_tags(site: Console) -> None:
    site.ok("service", "set", "web", "--tag", "a,b")
    assert site.ok("service", "set", "web", "--tag", "", "--output", "json").json["tags"] == []


@pytest.mark.parametrize("flags", [["--no-drain"], ["--drain", ""]])
def test_what_is_drained_comes_back(site: Console, flags: list[str]) -> None:
    site.ok("service", "set", "web", "--drain", "10.2.0.10")
    assert site.ok("service", "set", "web", *flags, "--output", "json").json == WEB


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--drain", "10.9.0.1"], 5, "one of the service's own addresses"),
        (["--drain", "10.2.0.10", "--no-drain"], 2, "contradicts"),
        (["--health-interval", "2h"], 5, "from 1 to 3600"),
        (["--health-timeout", "soon"], 5, "health_timeout: 'soon' is not valid"),
        (["--address", "10.2.0.99", "--drain", "10.2.0.10"], 5, "one of the service's own addresses"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(site: Console, flags: list[str], code: int, says: str) -> None:
    result = site("service", "set", "web", *flags)
    assert result.code == code
    assert says in result.err
    assert site.ok("service", "show", "web", "--output", "json").json == SHOWN


def test_addresses_cannot_be_cleared(site: Console) -> None:
    result = site("service", "set", "web", "--address", "")
    assert result.code == 5
    assert "addresses" in result.err
    assert site.ok("service", "show", "web", "--output", "json").json == SHOWN


def test_a_service_in_use_stays(site: Console) -> None:
    result = site("service", "remove", "web", "--yes")
    assert result.code == 4
    assert "'cw'" in result.err
    site.ok("mapping", "remove", "cw", "--yes")
    site.ok("service", "remove", "web", "--yes")
    assert [row["name"] for row in site.ok("service", "list", "--output", "json").json] == ["clients"]


def test_clusters_do_not_see_each_other(site: Console) -> None:
    site.ok("cluster", "add", "lab")
    site.ok("service", "add", "web", "--address", "10.7.0.1", "--cluster", "lab")
    assert site.ok("service", "show", "web", "--cluster", "lab", "--output", "json").json["cluster"] == "lab"
    assert site.ok("service", "show", "web", "--output", "json").json == SHOWN
    flags = ("--from", "clients", "--to", "web", "--protocol", "tcp", "--cluster", "lab")
    assert site("mapping", "add", "m", *flags).code == 3
