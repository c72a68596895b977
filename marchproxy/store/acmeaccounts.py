"""Accounts at CAs that speak ACME: their keys, sealed, and when orders were begun with them.

They are kept apart from certificates: an account is there before its first certificate, outlives a first
order that fails, and is shared, as CAs wish, by all certificates of a cluster with the same CA and contact.
"""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from marchproxy.model.errors import Conflict, NotFound
from marchproxy.store.database import Database
from marchproxy.store.rows import dump
from marchproxy.store.vault import Vault
from marchproxy.store.writer import insert, update

if TYPE_CHECKING:
    from pydal import DAL

MOST_ORDERS = 20
"""An hour, of one account. Let's Encrypt takes 300 in three hours."""
_HOUR = timedelta(hours=1)
_ACCOUNT = (
    "SELECT a.id, a.sealed, a.orders FROM acme_account a JOIN cluster c ON a.cluster = c.id"
    " WHERE c.name = ? AND a.directory = ? AND a.contact = ?"
)


class AcmeAccounts:
    """Part of a `Store`, whose promises hold here too."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def key(self, cluster: str, directory: str, contact: str) -> bytes:
        """The account's private key, as PKCS #8 in PEM form; it is made, and kept, where there is none.

        `directory` is the address of the CA's, `contact` may be empty. Raises `NotFound` and `StoreError`.
        """
        with self._database.writing() as dal:
            _, sealed, _ = self._account(dal, cluster, directory, contact)
            what = f"the key of the account at {directory}"
            return self._vault.unseal(sealed, _sealed_for(cluster, directory, contact), what=what)

    def begin(self, cluster: str, directory: str, contact: str) -> None:
        """Count an order that begins now. Raises `Conflict` where there were too many in the last hour."""
        now = _now()
        with self._database.writing() as dal:
            number, _, orders = self._account(dal, cluster, directory, contact)
            # A clock that was ahead for a while must not shut anybody out for longer than an hour.
            recent = [each for each in map(datetime.fromisoformat, orders) if abs(now - each) < _HOUR]
            if len(recent) >= MOST_ORDERS:
                free = min(recent) + _HOUR
                raise Conflict(
                    f"{MOST_ORDERS} orders at {directory} within an hour: the next one from {free:%H:%M} UTC",
                    hint="look at why orders fail rather than repeat them: CAs shut out who asks too often",
                )
            kept = [each.isoformat() for each in (*recent, now)]
            update(dal, dal.acme_account.id == number, orders=dump(kept))

    def _account(self, dal: "DAL", cluster: str, directory: str, contact: str) -> tuple[int, str, list[str]]:
        """Number, sealed key and times of orders of one that is there from now on."""
        found = self._database.query(_ACCOUNT, cluster, directory, contact)
        if found:
            number, sealed, orders = found[0]
            return int(number), sealed, json.loads(orders)
        owner = self._database.query("SELECT id FROM cluster WHERE name = ?", cluster)
        if not owner:
            raise NotFound("cluster", cluster)
        sealed = self._vault.seal(new_key(), _sealed_for(cluster, directory, contact))
        made = insert(
            dal.acme_account,
            cluster=int(owner[0][0]),
            directory=directory,
            contact=contact,
            sealed=sealed,
            orders="[]",
            created=_now().replace(tzinfo=None),
        )
        return made, sealed, []


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def new_key() -> bytes:
    """Of an account: ECDSA on P-256, as PKCS #8 in PEM form."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _sealed_for(cluster: str, directory: str, contact: str) -> str:
    """Nothing else has such a name."""
    return f"account of cluster {cluster} at {directory} for {contact}"
