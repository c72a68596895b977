"""`marchproxy cert`, as an operator uses it."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marchproxy.store.authority import sign
from marchproxy.store.x509 import Material
from tests.certificates import authority, signed
from tests.cli.console import Answers, Console, Daemon

RELOADED: Answers = {"POST /v1/reload": (200, {"revision": 7})}


def files(console: Console, material: Material) -> tuple[str, ...]:
    """The flags that name a certificate and its key in files."""
    names = {"--certificate": material.chain, "--key": material.key.decode()}
    words: list[str] = []
    for flag, text in names.items():
        path = console.folder / f"{flag[2:]}.pem"
        path.write_text(text)
        words += [flag, str(path)]
    return tuple(words)


def listed(console: Console, *words: str) -> dict[str, Any]:
    return {row["name"]: row for row in console.ok("cert", "list", *words, "--output", "json").json}


def test_one_is_generated_with_its_ca(site: Console) -> None:
    made = site.ok("cert", "generate", "proxy", "--host", "p.example", "--host", "10.1.0.1").err
    assert made.startswith("certificate proxy: EC P-256, expires ")
    rows = listed(site)
    assert list(rows) == ["ca", "proxy"]
    assert (rows["proxy"]["origin"], rows["proxy"]["state"]) == ("generated", "valid")
    assert rows["proxy"]["hosts"] == ["p.example", "10.1.0.1"]
    assert rows["proxy"]["issuer"] == rows["ca"]["subject"]
    assert rows["proxy"]["used_by"] == []
    text = site.ok("cert", "list").out
    assert "p.example" in text


def test_backends_are_shown_one_for_clients(site: Console) -> None:
    site.ok("cert", "generate", "edge", "--host", "edge.example", "--client")
    site.ok("cert", "generate", "proxy", "--host", "p.example")
    wrong = site("service", "set", "web", "--tls", "--tls-cert", "proxy")
    assert (wrong.code, "is not for clients" in wrong.err) == (4, True)
    site.ok("service", "set", "web", "--tls", "--tls-cert", "edge")
    assert listed(site)["edge"]["used_by"] == ["service 'web'"]
    assert site("cert", "remove", "edge", "--yes").code == 4
    wrong = site("mapping", "set", "cw", "--tls", "edge")
    assert (wrong.code, "is not for servers" in wrong.err) == (4, True)


def test_clients_get_what_they_have_to_trust(site: Console) -> None:
    site.ok("cert", "generate", "proxy", "--host", "p.example")
    pem = site.ok("cert", "show", "ca", "--pem").out
    assert pem.startswith("-----BEGIN CERTIFICATE-----\n")
    assert pem.endswith("-----END CERTIFICATE-----\n")
    shown = site.ok("cert", "show", "proxy", "--output", "json").json
    assert shown["certificate"].count("BEGIN CERTIFICATE") == 1
    assert "BEGIN" not in site.ok("cert", "show", "proxy").out


def test_no_key_is_ever_shown(site: Console) -> None:
    material = signed("p.example")
    said = site.ok("cert", "add", "proxy", *files(site, material), "--output", "json")
    everything = said.out + said.err + site.ok("cert", "show", "proxy", "--output", "json").out
    everything += site.ok("export").out + site.ok("cert", "list", "--output", "yaml").out
    assert material.key.decode().split("\n")[1] not in everything
    assert "PRIVATE" not in everything


def test_a_mapping_and_a_listener_use_it(site: Console) -> None:
    site.ok("cert", "generate", "proxy", "--host", "p.example")
    assert site("mapping", "set", "cw", "--tls", "none").code == 3
    site.ok("mapping", "set", "cw", "--tls", "proxy")
    site.ok("listener", "add", "explicit", "--bind", "10.1.0.1:3129", "--tls", "proxy")
    assert listed(site)["proxy"]["used_by"] == ["listener 'explicit@10.1.0.1:3129'", "mapping 'cw'"]
    refused = site("cert", "remove", "proxy", "--yes")
    assert refused.code == 4
    assert "mapping 'cw'" in refused.err
    site.ok("mapping", "set", "cw", "--tls", "")
    site.ok("listener", "set", "explicit@10.1.0.1:3129", "--tls", "")
    site.ok("cert", "remove", "proxy", "--yes")
    site.ok("cert", "remove", "ca", "--yes")
    assert listed(site) == {}
    assert site("cert", "remove", "proxy", "--yes").code == 3


def test_it_makes_no_revision_and_so_takes_no_trial(site: Console) -> None:
    before = site.ok("revision", "list", "--output", "json").json
    site.ok("cert", "generate", "proxy", "--host", "p.example")
    site.ok("cert", "add", "other", *files(site, signed("o.example")))
    site.ok("cert", "remove", "other", "--yes")
    assert site.ok("revision", "list", "--output", "json").json == before
    for words in (("add", "x"), ("remove", "proxy")):
        assert site("cert", *words, "--confirm", "60").code == 2


def test_exports_name_it_and_apply_wants_it(site: Console) -> None:
    site.ok("cert", "generate", "proxy", "--host", "p.example")
    site.ok("mapping", "set", "cw", "--tls", "proxy")
    exported = site.ok("export").out
    assert json.loads(exported)["clusters"][0]["mappings"][0]["tls"] == "proxy"
    assert "nothing to change" in site.ok("apply", "-f", "-", "--yes", stdin=exported).err
    site.ok("mapping", "set", "cw", "--tls", "")
    site.ok("cert", "remove", "proxy", "--yes")
    refused = site("apply", "-f", "-", "--yes", stdin=exported)
    assert refused.code == 3
    assert "cert add" in refused.err


def test_renewing_generated_and_added_ones(site: Console, daemon: Callable[[Answers], Daemon]) -> None:
    heard = daemon(RELOADED)
    site.ok("cert", "generate", "proxy", "--host", "p.example", "--days", "20")
    assert listed(site)["proxy"]["state"] == "expires soon"
    site.ok("cert", "renew", "proxy", "--days", "100")
    row = listed(site)["proxy"]
    assert (row["state"], row["hosts"]) == ("valid", ["p.example"])
    site.ok("cert", "add", "other", *files(site, signed("o.example")))
    refused = site("cert", "renew", "other")
    assert refused.code == 4
    assert "--certificate FILE" in refused.err
    site.ok("cert", "renew", "other", *files(site, signed("n.example")))
    assert listed(site)["other"]["hosts"] == ["n.example"]
    assert [path for path, _ in heard.asked] == ["POST /v1/reload"] * 4
    assert site("cert", "renew", "other", "--key", "x").code == 2


def test_what_clients_will_not_like_is_warned_of(site: Console) -> None:
    ca = authority()
    later = sign(ca.chain, ca.key, ["a.example"], timedelta(days=9), datetime.now(UTC) + timedelta(days=2))
    assert "not yet valid" in site.ok("cert", "add", "later", *files(site, later)).err
    site.ok("appliance", "set", "--certificate-warning", "1d")
    soon = sign(ca.chain, ca.key, ["a.example"], timedelta(days=9), datetime.now(UTC))
    assert "warning" not in site.ok("cert", "add", "soon", *files(site, soon)).err
    site.ok("appliance", "set", "--certificate-warning", "10d")
    assert "expires soon" in site.ok("cert", "renew", "soon", *files(site, soon)).err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add", "x", "--certificate", "none.pem", "--key", "none.pem"), 3, "none.pem"),
        (("add", "x"), 2, "--certificate"),
        (("add", "ca"), 2, "--certificate"),
        (("generate", "x"), 2, "--host"),
        (("generate", "x", "--host", "two words"), 5, "host"),
        (("generate", "x", "--host", "a.example", "--days", "9999"), 5, "825"),
        (("generate", "x", "--host", "a.example", "--days", "99999999999"), 5, "825"),
        (("generate", "x", "--host", "a.example", "--days", "0"), 5, "825"),
        (("generate", "ca", "--host", "a.example"), 4, "own CA"),
        (("generate", "x y", "--host", "a.example"), 5, "name"),
        (("generate", "x", "--host", "a.example", "--cluster", "nowhere"), 3, "nowhere"),
        (("show", "x"), 3, "certificate 'x' does not exist"),
        (("renew", "x"), 3, "certificate 'x' does not exist"),
        (("renew", "x", "--days", "9", "--certificate", "c", "--key", "k"), 2, "--days"),
        (("list", "--cluster", "nowhere"), 3, "nowhere"),
    ],
)
def test_what_is_refused(site: Console, words: tuple[str, ...], code: int, said: str) -> None:
    result = site("cert", *words)
    assert result.code == code
    assert said in result.err
    assert listed(site) == {}


def test_files_that_do_not_fit_are_refused(site: Console) -> None:
    one, other = signed("a.example"), signed("b.example")
    mixed = Material(one.facts, one.chain, other.key)
    result = site("cert", "add", "x", *files(site, mixed))
    assert result.code == 5
    assert "belongs to another" in result.err
    assert f"key: '{site.folder}/key.pem' is not valid" in result.err
    assert listed(site) == {}


def test_both_may_come_by_stdin(site: Console) -> None:
    made = signed("a.example")
    both = made.chain + made.key.decode()
    site.ok("cert", "add", "x", "--certificate", "-", "--key", "-", stdin=both)
    assert listed(site)["x"]["hosts"] == ["a.example"]


def test_other_clusters_have_their_own(site: Console, tmp_path: Path) -> None:
    site.ok("cluster", "add", "lab")
    site.ok("cert", "generate", "proxy", "--host", "p.example", "--cluster", "lab")
    assert listed(site) == {}
    assert set(listed(site, "--cluster", "lab")) == {"ca", "proxy"}
    assert site("listener", "add", "explicit", "--bind", "10.1.0.1:3129", "--tls", "proxy").code == 3
    site.ok("listener", "add", "explicit", "--bind", "10.1.0.1:3129", "--tls", "lab/proxy")
    refused = site("cluster", "remove", "lab", "--yes")
    assert refused.code == 4
