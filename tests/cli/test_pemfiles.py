"""Certificates that flags name as files."""

from pathlib import Path

from tests.cli.console import Console
from tests.clientcerts import ClientAuthority

MTLS = (
    "--from",
    "clients",
    "--to",
    "web",
    "--protocol",
    "https",
    "--listen",
    "10.1.0.1:443",
    "--tls",
    "site",
)


def test_a_file_is_read_and_stored(site: Console, tmp_path: Path) -> None:
    authority = ClientAuthority("ours")
    ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    ca.write_text(f"text before\n{authority.pem}")
    crl.write_text(authority.revoking())
    site.ok("cert", "generate", "site", "--host", "a.example")
    flags = ("--client-ca", str(ca), "--client-crl", str(crl), "--client-name", "cn:alice,ou:ops")
    added = site.ok("mapping", "add", "m", *MTLS, *flags, "--output", "json").json
    assert added["client_ca"] == authority.pem
    assert added["client_crl"].startswith("-----BEGIN X509 CRL-----")
    assert added["client_names"] == ["cn:alice", "ou:ops"]
    shown = site.ok("mapping", "show", "m").out
    assert "1 in PEM form" in shown
    assert "BEGIN" not in shown
    cleared = site.ok(
        *("mapping", "set", "m", "--client-ca", "", "--client-crl", "", "--client-name", ""),
        *("--output", "json"),
    )
    assert cleared.json["client_ca"] == ""
    web = site.ok("service", "set", "web", "--tls", "--tls-ca", str(ca), "--output", "json").json
    assert web["tls_ca"] == authority.pem


def test_what_is_wrong_is_said(site: Console, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    site.ok("cert", "generate", "site", "--host", "a.example")
    assert site("mapping", "add", "m", *MTLS, "--client-ca", str(tmp_path / "none")).code == 3
    refused = site("mapping", "add", "m", *MTLS, "--client-ca", str(key))
    assert refused.code == 5
    assert "private key" in refused.err
    assert "AAAA" not in refused.err
    assert site("mapping", "add", "m", *MTLS, "--client-name", "cn:x").code == 5
    assert site("service", "set", "web", "--tls-ca", str(key)).code == 5
