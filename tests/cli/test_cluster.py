"""`marchproxy cluster`, as an operator uses it."""

from pathlib import Path

import pytest

from marchproxy.store.store import Store
from tests.cli.console import Console
from tests.telemetry.logs.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_add_prints_a_key_that_works_and_nothing_else(site: Console) -> None:
    result = site.ok("cluster", "add", "lab")
    key = result.out.removesuffix("\n")
    assert len(key) >= 32
    assert key.isprintable()
    assert key not in result.err
    with Store.open(Path(site.variables["MARCHPROXY_STATE_DIR"])) as store:
        assert store.verify_cluster_key("lab", key)
        assert not store.verify_cluster_key("default", key)


def test_rotate_key_prints_a_new_one_beside_the_old(site: Console) -> None:
    old = site.ok("cluster", "add", "lab", "--output", "json").json
    new = site.ok("cluster", "rotate-key", "lab", "--output", "json").json
    assert old["name"] == new["name"] == "lab"
    assert old["api_key"] != new["api_key"]
    with Store.open(Path(site.variables["MARCHPROXY_STATE_DIR"])) as store:
        assert store.verify_cluster_key("lab", old["api_key"])
        assert store.verify_cluster_key("lab", new["api_key"])


def test_list_and_show_count_what_is_in_them(site: Console) -> None:
    site.ok("cluster", "add", "lab")
    expected = [
        {"name": "default", "services": 2, "mappings": 1, "audit": False},
        {"name": "lab", "services": 0, "mappings": 0, "audit": False},
    ]
    found = site.ok("cluster", "list", "--output", "json").json
    assert [{key: row[key] for key in expected[0]} for row in found] == expected
    shown = site.ok("cluster", "show", "lab", "--output", "json").json
    assert expected[1].items() <= shown.items()
    assert site.ok("cluster", "list").out.splitlines()[1].split() == ["default", "2", "1", "no"]


def test_audit_on_and_off(site: Console) -> None:
    before = site.ok("export").out
    changed = site.ok("cluster", "set", "default", "--audit", "on", "--output", "json")
    expected = {"name": "default", "services": 2, "mappings": 1, "audit": True}
    assert expected.items() <= changed.json.items()
    assert site.ok("export").json["clusters"][0]["audit"] is True
    assert "    audit: - -> yes" in site.ok("revision", "show", "3").out.splitlines()
    assert (
        site.ok("cluster", "set", "default", "--audit", "on").err == "nothing to change: revision 3 stays\n"
    )
    site.ok("cluster", "set", "default", "--audit", "off")
    assert site.ok("export").out == before
    assert site("cluster", "set", "nowhere", "--audit", "on").code == 3
    assert site("cluster", "set", "default", "--audit", "maybe").code == 5
    assert site("cluster", "set", "default").code == 2


def test_remove_takes_everything_in_it(site: Console) -> None:
    site.ok("cluster", "add", "lab")
    site.ok("service", "add", "db", "--address", "10.5.0.1", "--cluster", "lab")
    refused = site("cluster", "remove", "lab")
    assert refused.code == 2
    assert "services: 1, mappings: 0" in refused.err
    site.ok("cluster", "remove", "lab", "--yes")
    assert [row["name"] for row in site.ok("cluster", "list", "--output", "json").json] == ["default"]
    assert site("service", "list", "--cluster", "lab").code == 3


def test_what_is_not_possible_has_its_code(site: Console) -> None:
    assert site("cluster", "add", "default").code == 4
    assert site("cluster", "add", "two words").code == 5
    assert site("cluster", "remove", "default", "--yes").code == 4
    assert site("cluster", "remove", "nowhere", "--yes").code == 3
    assert site("cluster", "show", "nowhere").code == 3
    assert site("cluster", "rotate-key", "nowhere").code == 3


def test_every_log_flag_reaches_its_field(site: Console, authority: Authority) -> None:
    words = ["--syslog", "tls://Logs.example:6514", "--syslog-ca", str(authority.file), "--log-auth"]
    words += ["--log-netflow", "--log-debug", "--ipfix", "udp://[2001:DB8::1]:4739"]
    shown = site.ok(
        "cluster", "set", "default", *words, "--log-http", "https://l.example/x", "--output", "json"
    )
    assert {
        "syslog": "tls://logs.example:6514",
        "syslog_ca": authority.certificate,
        "log_auth": True,
        "log_netflow": True,
        "log_debug": True,
        "ipfix": "udp://[2001:db8::1]:4739",
        "log_http": "https://l.example/x",
    }.items() <= shown.json.items()
    before = site.ok("export").out
    number = site.ok("revision", "list", "--output", "json").json[0]["number"]
    off = ["--no-log-auth", "--no-log-netflow", "--no-log-debug", "--ipfix", "", "--log-http", ""]
    site.ok("cluster", "set", "default", "--syslog", "", *off)
    assert "log" not in site.ok("export").out
    site.ok("revision", "rollback", str(number), "--yes")
    assert site.ok("export").out == before


def test_the_certificates_of_a_server_go_with_it(site: Console, authority: Authority) -> None:
    site.ok(
        "cluster", "set", "default", "--syslog", "tls://a.example:6514", "--syslog-ca", str(authority.file)
    )
    site.ok("cluster", "set", "default", "--syslog", "tls://b.example:6514")
    assert (
        authority.certificate in site.ok("cluster", "show", "default", "--output", "json").json["syslog_ca"]
    )
    shown = site.ok("cluster", "show", "default").out
    assert "1 in PEM form" in shown
    assert "BEGIN" not in shown
    site.ok("cluster", "set", "default", "--syslog", "udp://192.0.2.5:514")
    assert site.ok("cluster", "show", "default", "--output", "json").json["syslog_ca"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--syslog", "192.0.2.5:514"], "expected udp://HOST:PORT or tcp://HOST:PORT or tls://HOST:PORT"),
        (["--syslog", "udp://192.0.2.5"], "udp://192.0.2.5"),
        (["--ipfix", "tls://192.0.2.5:4739"], "expected udp://HOST:PORT or tcp://HOST:PORT"),
        (["--log-http", "ftp://logs.example/"], "expected an address such as https://logs.example/ingest"),
        (["--log-http", "https://user:secret@logs.example/"], "a token goes into --log-http-token"),
        (["--syslog-ca", "/dev/null/x"], "/dev/null/x: Not a directory"),
    ],
)
def test_what_is_no_place_for_logs(site: Console, words: list[str], said: str) -> None:
    before = site.ok("export").out
    result = site("cluster", "set", "default", *words)
    assert result.code == 5
    assert said in result.err
    assert site.ok("export").out == before


def test_certificates_without_tls_and_keys_are_refused(site: Console, authority: Authority) -> None:
    result = site(
        "cluster", "set", "default", "--syslog", "udp://192.0.2.5:514", "--syslog-ca", str(authority.file)
    )
    assert result.code == 5
    assert "tls://HOST:PORT, which syslog_ca is for" in result.err
    _, key = authority.files("a.example")
    result = site("cluster", "set", "default", "--syslog", "tls://a.example:1", "--syslog-ca", str(key))
    assert result.code == 5
    assert "this is a private key" in result.err
    assert "BEGIN" not in result.err


LOGS = {"default": "https://logs.example/"}


def test_a_token_is_sealed_and_shown_nowhere(site: Console, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret-token\n")
    site.ok("cluster", "set", "default", "--log-http", "https://logs.example/", "--log-http-token", str(file))
    state = Path(site.variables["MARCHPROXY_STATE_DIR"])
    with Store.open(state) as store:
        assert store.credentials.log_tokens(LOGS).opened == {"default": b"s3cret-token"}
    assert "s3cret" not in site.ok("export").out + site.ok("cluster", "show", "default").out
    assert all(b"s3cret" not in path.read_bytes() for path in state.iterdir() if path.is_file())
    site.ok("cluster", "set", "default", "--log-http", "https://other.example/")
    with Store.open(state) as store:
        assert store.credentials.log_tokens(LOGS | {"default": "https://other.example/"}).opened == {}
        assert store.credentials.log_tokens(LOGS).opened == {}


@pytest.mark.parametrize("token", ["", "two words", "line\nline", "ü", "x" * 5000])
def test_what_is_no_token(site: Console, tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    before = site.ok("export").out
    words = ["--log-http", "https://logs.example/", "--log-http-token", str(file)]
    result = site("cluster", "set", "default", *words)
    assert result.code == 5
    assert token == "" or token not in result.err
    assert site.ok("export").out == before


def test_half_a_set_up_is_said(site: Console) -> None:
    assert "--log-netflow" in site.ok("cluster", "set", "default", "--syslog", "udp://192.0.2.5:514").err
    assert "before" not in site.ok("cluster", "set", "default", "--log-netflow").err
    assert "--syslog or" in site.ok("cluster", "set", "default", "--syslog", "").err
