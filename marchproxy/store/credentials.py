"""Credentials of services: tokens, and the secrets that JWTs are signed with here."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from marchproxy.model.entities import Auth, JwtAlgorithm
from marchproxy.model.errors import Conflict, InvalidValue
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


@dataclass(frozen=True, slots=True)
class Secrets:
    """What could be unsealed, by the qualified names of services."""

    opened: dict[str, bytes] = field(repr=False)
    failures: tuple[str, ...]
    """Why others could not, each in a sentence."""


class Credentials:
    """Part of a `Store`, whose promises hold here too. Nothing of this is in a snapshot or a revision."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

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
        opened, failures = {}, []
        for cluster, service, sealed in rows:
            name = qualify(cluster, service)
            try:
                opened[name] = self._vault.unseal(sealed, name)
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


def check_secret(secret: bytes) -> None:
    """Raise `InvalidValue` unless this can be a secret; a public key is none, whatever form it has."""
    if not LEAST_SECRET <= len(secret) <= MOST_SECRET:
        expected = f"a secret of {LEAST_SECRET} to {MOST_SECRET} bytes"
        raise InvalidValue("jwt_keys", f"{len(secret)} bytes", expected)
    if secret.lstrip().startswith((b"-----BEGIN", b"ssh-", b"ecdsa-", b"{")) or secret.startswith(
        b"\x30\x82"
    ):
        expected = "a secret, and this is a key: give --jwt-algorithm RS256, ES256 or EdDSA for it"
        raise InvalidValue("jwt_keys", "…", expected)
