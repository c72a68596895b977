"""Certificates of clusters, with their private keys sealed.

As tokens they are no part of the snapshot: a rollback must not bring an expired one back, and no export holds
a key. What a snapshot says is who uses which, by name; so names that are new to it are looked for here before
it becomes a revision (`check_certificates`), and what is used is not removed.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from marchproxy.model.certificate import AUTHORITY, Certificate, Facts, Origin, Purpose
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.names import parse_name, qualify, split_qualified
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.database import Database
from marchproxy.store.errors import StoreError
from marchproxy.store.rows import dump, read_instant
from marchproxy.store.trial import read_trial, refuse_during
from marchproxy.store.vault import Vault
from marchproxy.store.writer import insert, update

if TYPE_CHECKING:
    from pydal import DAL

    from marchproxy.store.x509 import Material

_COLUMNS = (
    "SELECT c.name, t.name, t.origin, t.chain, t.hosts, t.subject, t.issuer, t.kind, t.fingerprint,"
    " EXISTS (SELECT 1 FROM certificate_source s WHERE s.certificate = t.id), t.created, t.begins, t.expires"
    " FROM certificate t JOIN cluster c ON t.cluster = c.id"
)
_SEALED = "SELECT t.sealed FROM certificate t JOIN cluster c ON t.cluster = c.id"
_NAMED = " WHERE c.name = ? AND t.name = ?"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server proves itself by."""

    name: str
    """The qualified name of the certificate."""
    chain: str = field(repr=False)
    """PEM, the leaf first."""
    key: bytes = field(repr=False)
    """PKCS #8 in PEM, in the clear."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What could be unsealed."""

    identities: tuple[Identity, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    """What is known of those that were asked for, whether or not their keys open."""
    failures: tuple[str, ...] = ()
    """Why others could not, each in a sentence."""


class Certificates:
    """Part of a `Store`, whose promises hold here too. Nothing of this is in a snapshot or a revision."""

    def __init__(self, database: Database, vault: Vault, snapshot: Callable[[], Snapshot]) -> None:
        """`snapshot` is read with a transaction open."""
        self._database = database
        self._vault = vault
        self._snapshot = snapshot

    def add(self, cluster: str, name: str, material: "Material") -> Certificate:
        """Take over a chain and its key. Raises `NotFound`, `Conflict`, and `InvalidValue` for the name."""
        now = _now()
        with self._database.writing() as dal:
            return self._insert(dal, cluster, _free(name), Origin.ADDED, material, now)

    def generate(
        self,
        cluster: str,
        name: str,
        hosts: Sequence[str],
        lifetime: timedelta | None = None,
        *,
        purpose: Purpose = Purpose.SERVERS,
    ) -> Certificate:
        """Have the cluster's own CA, which is made where there is none, sign a certificate with a new key.

        Raises `NotFound`, `Conflict`, and as `authority.sign` does. `lifetime` None: `authority.LIFETIME`.
        `purpose`: whose proof it is to be.
        """
        now = _now()
        with self._database.writing() as dal:
            _free(name)
            self._expect_free(cluster, name)
            material = self._sign(dal, cluster, hosts, lifetime, now, purpose)
            return self._insert(dal, cluster, name, Origin.GENERATED, material, now)

    def replace(self, cluster: str, name: str, material: "Material") -> Certificate:
        """Put another chain and key in the place of those that there are. Raises `NotFound`, and `Conflict`
        for the CA, and for one that may not be used as the present one is.
        """
        from marchproxy.store.x509 import fits

        now = _now()
        with self._database.writing() as dal:
            held = self._find(cluster, name)
            if held.origin is Origin.AUTHORITY:
                raise Conflict(f"certificate {name!r} is the cluster's own CA: it is renewed without files")
            snapshot = self._snapshot()
            for used, purpose in ((served, Purpose.SERVERS), (shown, Purpose.CLIENTS)):
                user = next((who for who, named in used(snapshot) if named == held.qualified), None)
                if user and not fits(material.chain, purpose):
                    raise Conflict(
                        f"certificate {held.qualified!r} is used by {user}, and the other one is not for"
                        f" {purpose.value}",
                        hint="its extended key usage names other purposes only",
                    )
            return self._update(dal, held, Origin.ADDED, material, now)

    def renew(self, cluster: str, name: str, lifetime: timedelta | None = None) -> Certificate:
        """Have what was generated signed again for the same hosts, with a new key; the CA is made anew.

        `lifetime` None: `authority.LIFETIME`. Raises as `generate`, `Conflict` for what was added, and
        `InvalidValue` for a lifetime given for the CA, which has one of its own.
        """
        from marchproxy.store.authority import AUTHORITY_LIFETIME, make_authority
        from marchproxy.store.x509 import fits

        now = _now()
        with self._database.writing() as dal:
            held = self._find(cluster, name)
            if held.origin is Origin.AUTHORITY and lifetime is not None:
                raise InvalidValue(
                    "days", lifetime.days, f"none: a CA is valid {AUTHORITY_LIFETIME.days} days"
                )
            if held.origin is Origin.ADDED:
                raise Conflict(
                    f"certificate {name!r} was not generated here",
                    hint=f"marchproxy cert renew {name} --certificate FILE --key FILE",
                )
            made = (
                make_authority(cluster, now)
                if held.origin is Origin.AUTHORITY
                else self._sign(
                    *(dal, cluster, held.facts.hosts, lifetime, now),
                    Purpose.SERVERS if fits(held.chain, Purpose.SERVERS) else Purpose.CLIENTS,
                )
            )
            return self._update(dal, held, held.origin, made, now)

    def remove(self, cluster: str, name: str) -> None:
        """Remove a certificate and its key. Raises `NotFound`, and `Conflict` while something uses it or a
        revision is on trial, which may go back to using it.
        """
        with self._database.writing() as dal:
            held = self._find(cluster, name)
            refuse_during(read_trial(self._database))
            users = [user for user, used in uses(self._snapshot()) if used == held.qualified]
            if held.origin is Origin.AUTHORITY:
                users = [
                    f"certificate {each.name!r}"
                    for each in self._read(cluster)
                    if each.origin is Origin.GENERATED
                ]
            if users:
                raise Conflict(
                    f"certificate {name!r} is in use by {_listed(users)}", hint="change or remove that first"
                )
            table = dal.certificate
            dal((table.cluster == self._owner(cluster)) & (table.name == name)).delete()

    def every(self, cluster: str | None = None) -> list[Certificate]:
        """All certificates, or those of a cluster; by name."""
        with self._database.transaction():
            return self._read(cluster)

    def find(self, cluster: str, name: str) -> Certificate:
        """One of them. Raises `NotFound`."""
        with self._database.transaction():
            return self._find(cluster, name)

    def open(self, names: AbstractSet[str]) -> Opened:
        """Certificates with their keys, by qualified names. One that is missing, or whose key cannot be
        unsealed, is no reason to be without the others.
        """
        if not names:
            return Opened()
        with self._database.transaction():
            held = {each.qualified: each for each in self._read() if each.qualified in names}
            sealed = {name: self._sealed(each) for name, each in held.items()}
        identities = []
        failures = [f"certificate {name} is not there" for name in sorted(names - held.keys())]
        for name, certificate in held.items():
            try:
                identities.append(Identity(name, certificate.chain, self._unseal(certificate, sealed[name])))
            except StoreError as error:
                failures.append(error.message)
        return Opened(tuple(identities), tuple(held.values()), tuple(dict.fromkeys(failures)))

    def _sign(
        self,
        dal: "DAL",
        cluster: str,
        hosts: Sequence[str],
        lifetime: timedelta | None,
        now: datetime,
        purpose: Purpose,
    ) -> "Material":
        from marchproxy.store.authority import LIFETIME, make_authority, sign

        lifetime = LIFETIME if lifetime is None else lifetime

        try:
            held = self._find(cluster, AUTHORITY)
        except NotFound:
            self._owner(cluster)
            made = make_authority(cluster, now)
            held = self._insert(dal, cluster, AUTHORITY, Origin.AUTHORITY, made, now)
        key = self._unseal(held, self._sealed(held))
        return sign(held.chain, key, hosts, lifetime, now, purpose=purpose)

    def _insert(
        self, dal: "DAL", cluster: str, name: str, origin: Origin, made: "Material", now: datetime
    ) -> Certificate:
        self._expect_free(cluster, name)
        values = self._values(cluster, name, origin, made, now)
        insert(dal.certificate, cluster=self._owner(cluster), name=name, **values)
        return self._find(cluster, name)

    def _update(
        self, dal: "DAL", held: Certificate, origin: Origin, made: "Material", now: datetime
    ) -> Certificate:
        table = dal.certificate
        rows = (table.cluster == self._owner(held.cluster)) & (table.name == held.name)
        update(dal, rows, **self._values(held.cluster, held.name, origin, made, now))
        return self._find(held.cluster, held.name)

    def _values(
        self, cluster: str, name: str, origin: Origin, made: "Material", now: datetime
    ) -> dict[str, object]:
        facts = made.facts
        return {
            "origin": origin.value,
            "chain": made.chain,
            "sealed": self._vault.seal(made.key, _sealed_for(cluster, name)),
            "hosts": dump(list(facts.hosts)),
            "subject": facts.subject,
            "issuer": facts.issuer,
            "kind": facts.kind,
            "fingerprint": facts.fingerprint,
            "created": _column(now),
            "begins": _column(facts.begins),
            "expires": _column(facts.expires),
        }

    def _expect_free(self, cluster: str, name: str) -> None:
        if self._database.query(_SEALED + _NAMED, cluster, name):
            hint = f"marchproxy cert renew {name} puts another in its place"
            raise Conflict(f"certificate {name!r} exists already", hint=hint)

    def _read(self, cluster: str | None = None) -> list[Certificate]:
        where, values = (" WHERE c.name = ?", (cluster,)) if cluster else ("", ())
        rows = self._database.query(f"{_COLUMNS}{where} ORDER BY c.name, t.name", *values)
        return [_certificate(row) for row in rows]

    def _find(self, cluster: str, name: str) -> Certificate:
        rows = self._database.query(_COLUMNS + _NAMED, cluster, name)
        if not rows:
            raise NotFound("certificate", name, hint="marchproxy cert list shows those that there are")
        return _certificate(rows[0])

    def _sealed(self, held: Certificate) -> str:
        sealed: str = self._database.query(_SEALED + _NAMED, held.cluster, held.name)[0][0]
        return sealed

    def _unseal(self, held: Certificate, sealed: str) -> bytes:
        owner = _sealed_for(held.cluster, held.name)
        return self._vault.unseal(sealed, owner, what=f"the key of certificate {held.qualified!r}")

    def _owner(self, cluster: str) -> int:
        found = self._database.query("SELECT id FROM cluster WHERE name = ?", cluster)
        if not found:
            raise NotFound("cluster", cluster)
        return int(found[0][0])


def uses(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Who uses a certificate, and its qualified name."""
    yield from served(snapshot)
    yield from shown(snapshot)


def shown(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """The same of services, whose backends are shown it."""
    for cluster in snapshot.clusters:
        for service in cluster.services:
            if service.tls_cert is not None:
                who = qualify(cluster.name, service.name)
                yield f"service {who!r}", qualify(cluster.name, service.tls_cert)


def served(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """The same of what listens."""
    for listener in snapshot.listeners:
        if listener.tls is not None:
            yield f"listener {listener.name!r}", listener.tls
    for cluster in snapshot.clusters:
        for mapping in cluster.mappings:
            if mapping.tls is not None:
                who = qualify(cluster.name, mapping.name)
                yield f"mapping {who!r}", qualify(cluster.name, mapping.tls)


def check_certificates(database: Database, old: Snapshot, new: Snapshot) -> None:
    """Raise `NotFound` where a snapshot names a certificate that is not kept here, and `Conflict` where its
    cluster goes, or it is for another purpose. What `old` names already may be missing: that is the daemon's
    to complain about.
    """
    for used_by, purpose in ((served, Purpose.SERVERS), (shown, Purpose.CLIENTS)):
        _check_uses(database, list(used_by(old)), list(used_by(new)), new, purpose)


def _check_uses(
    database: Database,
    old: Iterable[tuple[str, str]],
    wanted: Iterable[tuple[str, str]],
    new: Snapshot,
    purpose: Purpose,
) -> None:
    before = {used for _, used in old}
    for user, used in wanted:
        cluster, name = split_qualified(used)
        if new.cluster(cluster) is None:
            hint = "change or remove what uses it first"
            raise Conflict(f"certificate {name!r} of cluster {cluster!r} is in use by {user}", hint=hint)
        if used in before:
            continue
        rows = database.query(_COLUMNS + _NAMED, cluster, name) if name != AUTHORITY else []
        if not rows:
            hint = f"{user} names it: marchproxy cert add, or cert generate, brings it here"
            raise NotFound("certificate", used, hint=hint)
        from marchproxy.store.x509 import fits

        if not fits(_certificate(rows[0]).chain, purpose):
            hint = "its extended key usage says so; marchproxy cert generate --client makes one for clients"
            raise Conflict(f"certificate {used!r} of {user} is not for {purpose}", hint=hint)


def _free(name: str) -> str:
    if parse_name(name) == AUTHORITY:
        raise Conflict(f"certificate {AUTHORITY!r} is the cluster's own CA", hint="choose another name")
    return name


def _certificate(row: Sequence[Any]) -> Certificate:
    cluster, name, origin, chain, hosts, subject, issuer, kind, fingerprint, fetched, *instants = row
    created, begins, expires = map(read_instant, instants)
    facts = Facts(tuple(json.loads(hosts)), subject, issuer, kind, fingerprint, begins, expires)
    return Certificate(cluster, name, Origin(origin), facts, created, chain, bool(fetched))


def _listed(users: Sequence[str]) -> str:
    return ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")


def _sealed_for(cluster: str, name: str) -> str:
    """Whom a key is sealed for: never what a service's secret is."""
    return f"certificate {cluster}/{name}"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _column(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None)
