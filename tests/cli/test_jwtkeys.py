"""`service set --jwt-key` and `--jwks`: what a file may hold, and what it is taken for."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from marchproxy.store.store import Store
from tests.cli.console import Console
from tests.dataplane.credentials.jwts import Private, ec_key, ed_key, public, rsa_key

KINDS: dict[str, Private] = {"RS256": rsa_key(), "ES256": ec_key(), "EdDSA": ed_key()}
SECRET = "c2VjcmV0IHNoYXJlZCB3aXRoIGFub3RoZXIgaXNzdWVy"


@pytest.fixture
def api(site: Console) -> Console:
    """A service `api` whose clients present JWTs."""
    site.ok("service", "add", "api", "--address", "10.3.0.1", "--auth", "jwt")
    return site


def pem(key: Private | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey) -> str:
    assert not isinstance(key, bytes)
    made: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made.decode()


def private(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def certificate(key: ec.EllipticCurvePrivateKey) -> str:
    now, name = datetime.now(UTC), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def shown(console: Console) -> dict[str, object]:
    found = console.ok("service", "show", "api", "--output", "json").json
    return {name: found[name] for name in ("jwt_algorithm", "jwt_keys", "jwks_url")}


def secrets(console: Console) -> dict[str, bytes]:
    with Store.open(Path(console.variables["MARCHPROXY_STATE_DIR"])) as store:
        return store.credentials.secrets().opened


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_public_key_in_each_form(api: Console, algorithm: str) -> None:
    key = public(KINDS[algorithm]).document()
    forms = [
        pem(KINDS[algorithm]),
        json.dumps(key),
        json.dumps({"keys": [key]}),
        "\n" + pem(KINDS[algorithm]),
    ]
    for form in forms:
        api.ok("service", "set", "api", "--jwt-key", api.write("key", form), "--jwt-algorithm", algorithm)
        assert shown(api) == {"jwt_algorithm": algorithm, "jwt_keys": [key], "jwks_url": None}


def test_the_algorithm_is_that_of_the_key(api: Console) -> None:
    api.ok("service", "set", "api", "--jwt-key", api.write("key", pem(ed_key())))
    assert shown(api)["jwt_algorithm"] == "EdDSA"
    api.ok("service", "set", "api", "--jwt-key", api.write("key", certificate(ec_key())))
    assert shown(api)["jwt_algorithm"] == "ES256"
    assert api.ok("export").json["clusters"][0]["services"][0]["jwt_keys"] == [public(ec_key()).document()]


def test_a_new_service_may_bring_its_key(site: Console) -> None:
    flags = ("--address", "10.3.0.1", "--auth", "jwt", "--jwt-audience", "a", "--jwt-issuer", "i")
    site.ok("service", "add", "api", *flags, "--jwt-key", "-", stdin=pem(rsa_key()))
    assert shown(site)["jwt_keys"] == [public(rsa_key()).document()]


def test_a_set_from_a_file_or_an_address(api: Console) -> None:
    keys = [public(ed_key(number), f"k{number}").document() for number in range(3)]
    other = {"kty": "oct", "k": "AAAA"}
    api.ok("service", "set", "api", "--jwks", api.write("keys", {"keys": [*keys, other]}))
    assert shown(api) == {"jwt_algorithm": "EdDSA", "jwt_keys": keys, "jwks_url": None}
    api.ok("service", "set", "api", "--jwks", "https://issuer.example/keys", "--jwt-algorithm", "RS256")
    url = {"jwt_algorithm": "RS256", "jwt_keys": [], "jwks_url": "https://issuer.example/keys"}
    assert shown(api) == url
    api.ok("service", "set", "api", "--jwks", "", "--jwt-algorithm", "")
    assert shown(api) == {"jwt_algorithm": "HS256", "jwt_keys": [], "jwks_url": None}


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_is_kept_in_the_vault_and_nowhere_else(api: Console, end: str) -> None:
    file = api.write("secret", SECRET + end)
    result = api.ok(
        "service", "set", "api", "--jwt-key", file, "--jwt-algorithm", "HS512", "--output", "json"
    )
    assert secrets(api) == {"api": SECRET.encode()}
    for said in (result.out, result.err, api.ok("export").out, api.ok("revision", "list").out):
        assert SECRET not in said
    state = Path(api.variables["MARCHPROXY_STATE_DIR"])
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in state.iterdir())


def test_a_new_service_may_bring_its_secret(site: Console) -> None:
    flags = ("--address", "10.3.0.1", "--auth", "jwt", "--jwt-algorithm", "HS256")
    site.ok("service", "add", "api", *flags, "--jwt-key", "-", stdin=SECRET)
    assert secrets(site) == {"api": SECRET.encode()}


def test_from_public_keys_to_a_secret_and_back(api: Console) -> None:
    for _ in range(2):
        api.ok("service", "set", "api", "--jwt-key", api.write("key", pem(rsa_key())))
        api.ok(
            *("service", "set", "api", "--jwt-algorithm", "HS256"), "--jwt-key", api.write("secret", SECRET)
        )
        assert shown(api) == {"jwt_algorithm": "HS256", "jwt_keys": [], "jwks_url": None}


@pytest.mark.parametrize(
    ("content", "flags", "code"),
    [
        (pem(rsa_key()), ["--jwt-algorithm", "HS256"], 5),
        (pem(rsa_key()), ["--jwt-algorithm", "ES256"], 5),
        (pem(rsa_key()), ["--jwt-algorithm", "none"], 5),
        (pem(rsa_key()), ["--auth", "token"], 5),
        (private(rsa_key()), [], 5),
        (private(ed_key()), ["--jwt-algorithm", "HS256"], 5),
        (json.dumps(public(ec_key()).document() | {"d": "AAAA"}), [], 5),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", [], 5),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", [], 5),
        (pem(ec.generate_private_key(ec.SECP384R1())), [], 5),
        (pem(rsa.generate_private_key(65537, 1024)), [], 5),  # noqa: S505  (that is the point)
        (pem(dsa.generate_private_key(2048)), [], 5),
        ("{", [], 5),
        ('{"keys": []}', [], 5),
        ('{"keys": [{"kty": "oct", "k": "AAAA"}]}', [], 5),
        (SECRET, [], 2),
        (SECRET, ["--jwt-algorithm", "RS256"], 2),
        (SECRET[:31], ["--jwt-algorithm", "HS256"], 5),
        ("", ["--jwt-algorithm", "HS256"], 5),
        ("x" * 1025, ["--jwt-algorithm", "HS256"], 5),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGhhbGxvCg", ["--jwt-algorithm", "HS256"], 5),
        (SECRET, ["--jwt-algorithm", "HS256", "--jwks", "https://issuer.example/keys"], 2),
    ],
)
def test_what_is_refused_changes_nothing(api: Console, content: str, flags: list[str], code: int) -> None:
    before = api.ok("export").out
    result = api("service", "set", "api", "--jwt-key", api.write("key", content), *flags)
    assert (result.code, result.out) == (code, ""), result
    assert "Traceback" not in result.err
    for line in content.splitlines():
        assert not line or len(line) < 30 or line not in result.err
    assert api.ok("export").out == before
    assert secrets(api) == {}


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("nowhere.json", 3),
        ("http://issuer.example/keys", 5),
        ("ftp://issuer.example/keys", 5),
        ("https://user:pass@issuer.example/", 5),
    ],
)
def test_where_no_set_is(api: Console, source: str, code: int) -> None:
    assert api("service", "set", "api", "--jwks", source, "--jwt-algorithm", "RS256").code == code
    assert api("service", "set", "api", "--jwks", api.write("x", "no JSON")).code == 5


def test_a_secret_for_a_service_that_takes_none_is_a_conflict(site: Console) -> None:
    result = site("service", "set", "web", "--jwt-key", site.write("s", SECRET), "--jwt-algorithm", "HS256")
    assert result.code == 4
    assert "marchproxy service set web --auth jwt" in result.err
    assert secrets(site) == {}


@pytest.mark.parametrize("auth", ["none", "Token", ""])
def test_another_method_leaves_nothing_of_jwts(api: Console, auth: str) -> None:
    flags = ("--jwt-audience", "a", "--jwt-issuer", "i", "--jwt-key", api.write("key", pem(ec_key())))
    before = api.ok("service", "show", "api", "--output", "json").json
    api.ok("service", "set", "api", *flags)
    changed = api.ok("service", "set", "api", "--auth", auth, "--output", "json").json
    assert changed | {"backends": []} == before | {"auth": auth.lower() or "none"}
    assert api("service", "set", "api", "--auth", "none", "--jwt-audience", "a").code == 5
