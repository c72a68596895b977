"""Where certificates come from beside files: HashiCorp Vault, Infisical and ACME, behind one small interface.

Each is asked by a few requests of JSON.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode

from marchproxy.client.asking import Document, Server, SourceFailed
from marchproxy.client.certorigin import Account, Origin, Source, is_address, issues


def source_of(origin: Origin, account: Account | None = None) -> Source:
    """What speaks to it. `account` is ACME's: without one, nothing is fetched there."""
    if origin.kind == "acme":
        from marchproxy.client.acme import Acme

        return Acme(origin, account)
    server = Server(origin.url, origin.ca)
    return _Vault(server, origin) if origin.kind == "vault" else _Infisical(server, origin)


class _Vault:
    """The HTTP API, version 1: `pki/issue/ROLE` of the PKI engine, or a secret of the KV engine (2 or 1)."""

    def __init__(self, server: Server, origin: Origin) -> None:
        self.issues = issues(origin)
        self._server = server
        self._origin = origin

    def fetch(self) -> tuple[bytes, bytes]:
        """See `Source`."""
        options = self._origin.options
        path = "/v1/" + quote(options["path"].strip("/"))
        fields = {"X-Vault-Token": self._token()}
        if "namespace" in options:
            fields["X-Vault-Namespace"] = options["namespace"]
        if not self.issues:
            data = _object(self._server.ask("GET", path, fields), "data")
            held = data.get("data", data)
            return _pem(held, "certificate", "chain"), _pem(held, "private_key", "key")
        hosts = options["hosts"].split(",")
        names = [host for host in hosts if not is_address(host)]
        body = {
            "common_name": hosts[0],
            "alt_names": ",".join(names),
            "ip_sans": ",".join(host for host in hosts if is_address(host)),
            **({"ttl": options["ttl"]} if "ttl" in options else {}),
        }
        data = _object(self._server.ask("POST", path, fields, body), "data")
        chain = data.get("ca_chain") or [data.get("issuing_ca", "")]
        certificates = [_pem(data, "certificate"), *(str(each).encode() for each in chain if each)]
        return b"\n".join(_without_root(certificates)), _pem(data, "private_key")

    def _token(self) -> str:
        role = self._origin.options.get("role_id")
        if role is None:
            return self._origin.secret
        body = {"role_id": role, "secret_id": self._origin.secret}
        found = _object(self._server.ask("POST", "/v1/auth/approle/login", {}, body), "auth")
        return _text(found, "client_token")


class _Infisical:
    """Two secrets of a project, opened by Universal Auth (API v1 for the login, v3 for secrets)."""

    issues = False

    def __init__(self, server: Server, origin: Origin) -> None:
        self._server = server
        self._origin = origin

    def fetch(self) -> tuple[bytes, bytes]:
        """See `Source`."""
        options = self._origin.options
        body = {"clientId": options["client_id"], "clientSecret": self._origin.secret}
        login = self._server.ask("POST", "/api/v1/auth/universal-auth/login", {}, body)
        fields = {"Authorization": f"Bearer {_text(login, 'accessToken')}"}
        return self._read(options["certificate"], fields), self._read(options["key"], fields)

    def _read(self, name: str, fields: Mapping[str, str]) -> bytes:
        options = self._origin.options
        query = {
            "workspaceId": options["project"],
            "environment": options["environment"],
            "secretPath": options.get("folder", "/"),
        }
        target = f"/api/v3/secrets/raw/{quote(name, safe='')}?{urlencode(query)}"
        return _pem(_object(self._server.ask("GET", target, fields), "secret"), "secretValue")


def _object(document: Document, name: str) -> Document:
    found = document.get(name)
    if not isinstance(found, dict):
        raise SourceFailed(f"the answer has no {name!r}")
    return found


def _text(document: Document, *names: str) -> str:
    for name in names:
        found = document.get(name)
        if isinstance(found, str) and found:
            return found
    raise SourceFailed(f"the answer has no {names[0]!r}")


def _pem(document: Document, *names: str) -> bytes:
    return _text(document, *names).encode("ascii", "replace")


def _without_root(chain: Sequence[bytes]) -> Sequence[bytes]:
    """Clients have the root, and a chain that repeats a certificate is refused."""
    from cryptography import x509

    kept: list[bytes] = []
    for number, each in enumerate(chain):
        try:
            read = x509.load_pem_x509_certificate(each)
        except ValueError:
            raise SourceFailed("the answer holds what is no certificate") from None
        if each.strip() not in kept and not (number and read.issuer == read.subject):
            kept.append(each.strip())
    return kept
