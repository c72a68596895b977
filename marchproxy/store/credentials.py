"""Credentials of services: tokens, and the secrets that JWTs are signed with here."""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from marchproxy.model.entities import Auth, JwtAlgorithm
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.names import qualify
from marchproxy.store import tokens
from marchproxy.store.database import Database
from marchproxy.store.errors import StoreError
from marchproxy.store.tokens import Issued, Signing, Token, find_service
from marchproxy.store.vault import Vault
from marchproxy.store.writer import insert, update

if TYPE_CHECKING:
    from pydal import DAL

SECRET_BYTES = 64
"""Of a secret that is made here: what HS512 wants at least (RFC 7518 section 3.2)."""
LEAST_SECRET = 32
"""Bytes of one that is shared with another issuer."""
MOST_SECRET = 1024
_KEYS = (b"-----BEGIN", b"ssh-", b"ecdsa-", b"{")
"""How the text of a key begins: PEM, OpenSSH, JWK."""
_DER = (b"\x30\x82", b"\x30\x59", b"\x30\x2a\x30")
"""How RSA, P-256 and Ed25519 keys begin in ASN.1."""

_SEALED = (
    "SELECT c.name, s.name, j.sealed FROM jwt_secret j"
    " JOIN service s ON j.service = s.id JOIN cluster c ON s.cluster = c.id"
)

_LOG_TOKENS = "SELECT c.name, t.sealed FROM log_token t JOIN cluster c ON t.cluster = c.id"
_BEARER = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
MOST_LOG_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class Secrets:
    """What could be unsealed, by the qualified names of services, or the names of clusters."""

    opened: dict[str, bytes] = field(repr=False)
    failures: tuple[str, ...]
    """Why others could not, each in a sentence."""


class Credentials:
    """Part of a `Store`, whose promises hold here too. Nothing of this is in a snapshot or a revision."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self.derived_key = vault.derived

    def issue(self, cluster: str, service: str, *, lifetime: timedelta | None = None) -> Issued:
        """Make a token, to be shown once, or the record and key of a JWT; see `tokens.issue`."""
        signing = self._signing(qualify(cluster, service))
        return tokens.issue(self._database, signing, cluster, service, datetime.now(UTC), lifetime)

    def rotate(
        self,
        cluster: str,
        service: str,
        *,
        lifetime: timedelta | None = None,
        overlap: timedelta = tokens.OVERLAP,
    ) -> Issued:
        """Make a new token; those that there are work for `overlap` longer. See `tokens.rotate`."""
        signing, now = self._signing(qualify(cluster, service)), datetime.now(UTC)
        return tokens.rotate(self._database, signing, cluster, service, now, lifetime, overlap)

    def revoke(
        self, cluster: str, service: str, *, ids: Sequence[int] = (), jtis: Sequence[str] = ()
    ) -> list[Token]:
        """Take tokens back; see `tokens.revoke`."""
        return tokens.revoke(self._database, cluster, service, datetime.now(UTC), ids=ids, jtis=jtis)

    def tokens(self, cluster: str | None = None, service: str | None = None) -> list[Token]:
        """All tokens, those of a cluster, or of one service; in the order in which they were made."""
        with self._database.transaction():
            return tokens.read_tokens(self._database, cluster, service)

    def note_uses(self, uses: Mapping[int, datetime]) -> None:
        """Remember when tokens, by their numbers, were last used."""
        tokens.note_uses(self._database, uses)

    def keep_secret(self, cluster: str, service: str, secret: bytes) -> None:
        """Take over a secret that is shared with another issuer. What the old one signed opens nothing more.

        Raises `NotFound`, `Conflict` for a service without secret, `InvalidValue` for what is none, and
        `StoreError`.
        """
        check_secret(secret)
        with self._database.writing() as dal:
            owner, table = self._owner(cluster, service), dal.jwt_secret
            sealed = self._sealed(secret, qualify(cluster, service))
            if self._database.query("SELECT 1 FROM jwt_secret WHERE service = ?", owner):
                update(dal, table.service == owner, **sealed)
            else:
                insert(table, service=owner, **sealed)

    def secrets(self) -> Secrets:
        """All secrets. One that cannot be unsealed is no reason to be without the others."""
        with self._database.transaction():
            rows = self._database.query(_SEALED)
        names = ((qualify(cluster, service), sealed) for cluster, service, sealed in rows)
        return self._unsealed((name, name, sealed) for name, sealed in names)

    def keep_log_token(self, cluster: str, address: str, token: bytes | None) -> None:
        """Take over what opens the log platform of a cluster at `address`, and at no other; None: forget it.

        Raises `NotFound`, `InvalidValue` for what cannot stand in a header, and `StoreError`.
        """
        if token is not None:
            check_log_token(token)
        with self._database.writing() as dal:
            found = self._database.query("SELECT id FROM cluster WHERE name = ?", cluster)
            if not found:
                raise NotFound("cluster", cluster)
            [(owner,)] = found
            dal(dal.log_token.cluster == owner).delete()
            if token is not None:
                insert(dal.log_token, cluster=owner, **self._sealed(token, _of_logs(cluster, address)))

    def log_tokens(self, addresses: Mapping[str, str]) -> Secrets:
        """What opens the log platforms at these addresses, by the names of clusters, as far as it unseals.

        A token that was given for another address is a failure: an address may come back by a rollback.
        """
        with self._database.transaction():
            rows = self._database.query(_LOG_TOKENS)
        return self._unsealed(
            (cluster, _of_logs(cluster, addresses[cluster]), sealed)
            for cluster, sealed in rows
            if cluster in addresses
        )

    def _unsealed(self, rows: Iterable[tuple[str, str, str]]) -> Secrets:
        """From names, owners and what is sealed for them."""
        opened, failures = {}, []
        for name, owner, sealed in rows:
            try:
                opened[name] = self._vault.unseal(sealed, owner)
            except StoreError as error:
                failures.append(error.message)
        return Secrets(opened, tuple(dict.fromkeys(failures)))

    def _signing(self, name: str) -> Signing:
        """What JWTs of the service are signed with here: its secret, which is made where there is none."""

        def find(dal: "DAL", owner: int) -> bytes:
            found = self._database.query("SELECT sealed FROM jwt_secret WHERE service = ?", owner)
            if found:
                return self._vault.unseal(found[0][0], name)
            made = secrets.token_bytes(SECRET_BYTES)
            insert(dal.jwt_secret, service=owner, **self._sealed(made, name))
            return made

        return find

    def _sealed(self, secret: bytes, name: str) -> dict[str, object]:
        now = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
        return {"sealed": self._vault.seal(secret, name), "created": now}

    def _owner(self, cluster: str, service: str) -> int:
        owner, auth, algorithm = find_service(self._database, cluster, service)
        if auth != Auth.JWT or JwtAlgorithm(algorithm).key_type is not None:
            raise Conflict(
                f"service {service!r} takes no JWTs that are signed with a secret",
                hint=f"marchproxy service set {service} --auth jwt",
            )
        return owner


def check_log_token(token: bytes) -> None:
    """Raise `InvalidValue` unless this can follow `Bearer` in a header (RFC 6750 section 2.1)."""
    if not _BEARER.fullmatch(token) or len(token) > MOST_LOG_TOKEN:
        expected = f"one token on one line: 1 to {MOST_LOG_TOKEN} letters, digits and -._~+/="
        raise InvalidValue("log_http_token", "…", expected)


def _of_logs(cluster: str, address: str) -> str:
    """Whom a log token is sealed for; no service has such a name."""
    return f"logs of {cluster} at {address}"


def check_secret(secret: bytes) -> None:
    """Raise `InvalidValue` unless this can be a secret; a public key is none, whatever form it has."""
    if not LEAST_SECRET <= len(secret) <= MOST_SECRET:
        expected = f"a secret of {LEAST_SECRET} to {MOST_SECRET} bytes"
        raise InvalidValue("jwt_keys", f"{len(secret)} bytes", expected)
    if secret.lstrip().startswith(_KEYS) or secret.startswith(_DER):
        expected = "a secret, and this is a key: give --jwt-algorithm RS256, ES256 or EdDSA for it"
        raise InvalidValue("jwt_keys", "…", expected)
