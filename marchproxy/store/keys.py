"""API keys of clusters: shown once, kept as a hash, replaced with an overlap in which old and new both work.

A key is 32 random bytes, so its SHA-256 needs neither salt nor stretching: there is nothing to guess. Keys
are not part of the snapshot, and a rollback does not bring one back.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.store.database import Database
from marchproxy.store.rows import read_instant
from marchproxy.store.writer import insert, update

if TYPE_CHECKING:
    from pydal import DAL

OVERLAP = timedelta(hours=24)
MAX_OVERLAP = timedelta(days=365)

_KEYS = (
    "SELECT k.hash, k.created, k.expires FROM cluster_key k"
    " JOIN cluster c ON k.cluster = c.id WHERE c.name = ? ORDER BY k.id"
)


@dataclass(frozen=True, slots=True)
class ClusterKey:
    """A key as far as the store knows it."""

    hash: str
    """SHA-256 of the key, hexadecimal."""
    created: datetime
    expires: datetime | None
    """None until it is replaced."""

    def valid(self, now: datetime) -> bool:
        """Whether the key opens anything at this moment."""
        return self.expires is None or now < self.expires


def create_key(database: Database, cluster: str, now: datetime) -> str:
    """Make a cluster's first key and return it; nobody can read it later.

    Raises `NotFound` without such a cluster, `Conflict` where a key is in use.
    """
    with database.writing() as dal:
        if any(key.valid(now) for key in read_keys(database, cluster)):
            raise Conflict(f"cluster {cluster!r} has a key", hint=f"marchproxy cluster rotate-key {cluster}")
        return _issue(dal, cluster, now)


def rotate_key(database: Database, cluster: str, now: datetime, overlap: timedelta) -> str:
    """Make a new key and return it. The old one works for `overlap` longer, from zero to a year."""
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidValue("overlap", str(overlap), f"a time from 0 to {MAX_OVERLAP.days} days")
    with database.writing() as dal:
        owner, table = _owner(dal, cluster), dal.cluster_key
        dal((table.cluster == owner) & (table.expires <= _column(now))).delete()
        update(dal, (table.cluster == owner) & (table.expires == None), expires=_column(now + overlap))  # noqa: E711
        return _issue(dal, cluster, now)


def verify_key(database: Database, cluster: str, key: str, now: datetime) -> bool:
    """Whether a key opens the cluster now. Compares with every key, each in constant time."""
    given = _hash(key)
    with database.transaction():
        held = read_keys(database, cluster)
    opens = False
    for known in held:
        opens |= hmac.compare_digest(given, known.hash) and known.valid(now)
    return opens


def read_keys(database: Database, cluster: str) -> list[ClusterKey]:
    """The keys of a cluster. Callers hold a transaction open."""
    rows = database.query(_KEYS, cluster)
    return [ClusterKey(key, read_instant(made), ends and read_instant(ends)) for key, made, ends in rows]


def _issue(dal: "DAL", cluster: str, now: datetime) -> str:
    key = secrets.token_urlsafe(32)
    created = _column(now)
    insert(dal.cluster_key, cluster=_owner(dal, cluster), hash=_hash(key), created=created, expires=None)
    return key


def _owner(dal: "DAL", cluster: str) -> int:
    found = dal(dal.cluster.name == cluster).select(dal.cluster.id).first()
    if found is None:
        raise NotFound("cluster", cluster)
    return int(found.id)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _column(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None)
