"""Where certificates come from that are fetched, with what opens it sealed; part of no revision, as they."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from marchproxy.model.errors import NotFound
from marchproxy.store.database import Database
from marchproxy.store.rows import dump
from marchproxy.store.vault import Vault
from marchproxy.store.writer import insert, update

_COLUMNS = (
    "SELECT c.name, t.name, s.document, s.sealed FROM certificate_source s"
    " JOIN certificate t ON s.certificate = t.id JOIN cluster c ON t.cluster = c.id"
)
_KEPT = (
    "SELECT s.id FROM certificate_source s JOIN certificate t ON s.certificate = t.id"
    " JOIN cluster c ON t.cluster = c.id WHERE c.name = ? AND t.name = ? AND s.sealed = ?"
)
_CERTIFICATE = (
    "SELECT t.id FROM certificate t JOIN cluster c ON t.cluster = c.id WHERE c.name = ? AND t.name = ?"
)


@dataclass(frozen=True, slots=True)
class KeptSource:
    """One of them."""

    cluster: str
    name: str
    """Of the certificate."""
    document: dict[str, Any]
    """Whatever the caller says about it."""
    sealed: str = field(repr=False)


class CertificateSources:
    """Part of a `Store`, whose promises hold here too."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def keep(self, cluster: str, name: str, document: dict[str, Any], secret: str) -> None:
        """Remember where a certificate comes from, in the place of what was. Raises `NotFound`."""
        with self._database.writing() as dal:
            owner = self._certificate(cluster, name)
            dal(dal.certificate_source.certificate == owner).delete()
            insert(
                dal.certificate_source,
                certificate=owner,
                document=dump(document),
                sealed=self._vault.seal(secret.encode("ascii"), _sealed_for(cluster, name)),
                created=datetime.now(UTC).replace(microsecond=0, tzinfo=None),
            )

    def note(self, source: KeptSource, document: dict[str, Any]) -> None:
        """Say something else about one; nothing happens where it is gone, or another one is there by now."""
        with self._database.writing() as dal:
            found = self._database.query(_KEPT, source.cluster, source.name, source.sealed)
            if found:
                update(dal, dal.certificate_source.id == int(found[0][0]), document=dump(document))

    def forget(self, cluster: str, name: str) -> bool:
        """Fetch it no more; whether it was. Raises `NotFound` where there is no such certificate."""
        with self._database.writing() as dal:
            owner = self._certificate(cluster, name)
            return bool(dal(dal.certificate_source.certificate == owner).delete())

    def every(self) -> Sequence[KeptSource]:
        """All, by cluster and name."""
        with self._database.transaction():
            rows = self._database.query(f"{_COLUMNS} ORDER BY c.name, t.name")
        return [
            KeptSource(cluster, name, json.loads(document), sealed)
            for cluster, name, document, sealed in rows
        ]

    def secret(self, source: KeptSource) -> str:
        """What opens it. Raises `StoreError`."""
        owner = _sealed_for(source.cluster, source.name)
        what = f"what opens the source of certificate {source.name!r}"
        return self._vault.unseal(source.sealed, owner, what=what).decode("ascii")

    def _certificate(self, cluster: str, name: str) -> int:
        found = self._database.query(
            _CERTIFICATE,
            cluster,
            name,
        )
        if not found:
            raise NotFound("certificate", name, hint="marchproxy cert list shows those that there are")
        return int(found[0][0])


def _sealed_for(cluster: str, name: str) -> str:
    """Nothing else has such a name."""
    return f"source of certificate {cluster}/{name}"
