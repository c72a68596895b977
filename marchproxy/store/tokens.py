"""Tokens of services: shown once, kept as a hash, replaced with an overlap in which old and new both work.

A token is 32 random bytes, so its SHA-256 needs neither salt nor stretching: there is nothing to guess, and a
hash can be looked up. Of a JWT that was issued here its `jti` is kept, so that it can be listed and taken
back. None of this is part of the snapshot: a rollback does not bring a token back, and with its service it
goes.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from marchproxy.model.entities import Auth, JwtAlgorithm
from marchproxy.model.errors import Conflict, InvalidValue, NotFound
from marchproxy.model.names import qualify
from marchproxy.model.reason import Reason
from marchproxy.store.database import Database
from marchproxy.store.rows import read_instant
from marchproxy.store.writer import insert, update

if TYPE_CHECKING:
    from pydal import DAL

OVERLAP = timedelta(hours=24)
MAX_OVERLAP = timedelta(days=365)
MAX_LIFETIME = timedelta(days=3650)
JWT_LIFETIME = timedelta(hours=24)
"""Of a JWT for which no other is asked: each has to end."""
_REMEMBERED = timedelta(days=30)
"""For so long a token that has ended is known by name, and its client told why."""
_LATE = timedelta(minutes=1)
"""For less than that a JWT may work beyond its end, because clocks differ."""

_TOKENS = (
    "SELECT t.id, c.name, s.name, t.hash, t.jti, t.created, t.expires, t.replaced, t.revoked, t.last_used"
    " FROM token t JOIN service s ON t.service = s.id JOIN cluster c ON s.cluster = c.id"
)
_SERVICE = (
    "SELECT s.id, s.auth, s.jwt_algorithm FROM service s JOIN cluster c ON s.cluster = c.id"
    " WHERE c.name = ? AND s.name = ?"
)


class State(StrEnum):
    """What has become of a token."""

    ACTIVE = "active"
    REPLACED = "replaced"
    """There is a newer one; it works until the overlap ends."""
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Token:
    """A token, or an issued JWT, as far as the store knows it."""

    id: int
    service: str
    """The qualified name."""
    hash: str
    """SHA-256 in hexadecimal: of the token, or of the JWT's `jti`."""
    jti: str | None
    """None: it is a token, and no JWT."""
    created: datetime
    expires: datetime | None
    """Its own end; None: it has none."""
    replaced: datetime | None
    """From this instant on a newer one has taken its place."""
    revoked: datetime | None
    last_used: datetime | None

    @property
    def ends(self) -> datetime | None:
        """From this instant on it opens nothing, unless it is revoked before."""
        return min((end for end in (self.expires, self.replaced) if end is not None), default=None)

    def refusal(self, now: datetime) -> Reason | None:
        """Why it opens nothing at this moment: AUTH_REVOKED or AUTH_EXPIRED; None: it does."""
        if self.revoked is not None:
            return Reason.AUTH_REVOKED
        return Reason.AUTH_EXPIRED if self.ends is not None and self.ends <= now else None

    def state(self, now: datetime) -> State:
        """What has become of it."""
        refusal = self.refusal(now)
        if refusal is not None:
            return State.REVOKED if refusal is Reason.AUTH_REVOKED else State.EXPIRED
        return State.ACTIVE if self.replaced is None else State.REPLACED


type Signing = Callable[[DAL, int], bytes]
"""What a service's JWTs are signed with here, by its row. Called with a writing transaction open."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token: its record, and what nobody can read later."""

    token: Token
    secret: str | None = field(repr=False)
    """None: it is a JWT, which is yet to be signed."""
    key: bytes | None = field(repr=False)
    """What it is to be signed with."""


def digest(text: str) -> str:
    """How the store knows a token or a `jti`: SHA-256 in hexadecimal."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def issue(
    database: Database,
    signing: Signing,
    cluster: str,
    name: str,
    now: datetime,
    lifetime: timedelta | None,
) -> Issued:
    """Make a token for a service. `lifetime` None: without end, or `JWT_LIFETIME`.

    Raises `NotFound` without such a service, `Conflict` where it takes none that is issued here, and
    `InvalidValue` for a lifetime.
    """
    with database.writing() as dal:
        return _issue(dal, database, signing, cluster, name, now, lifetime)


def rotate(
    database: Database,
    signing: Signing,
    cluster: str,
    name: str,
    now: datetime,
    lifetime: timedelta | None,
    overlap: timedelta,
) -> Issued:
    """Make a new token; those that the service has work for `overlap` longer at most. Raises as `issue`."""
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidValue("overlap", str(overlap), f"a time from 0 to {MAX_OVERLAP.days} days")
    with database.writing() as dal:
        table, end = dal.token, _column(now + overlap)
        owner = find_service(database, cluster, name)[0]
        later = (table.replaced == None) | (table.replaced > end)  # noqa: E711
        update(dal, (table.service == owner) & (table.revoked == None) & later, replaced=end)  # noqa: E711
        return _issue(dal, database, signing, cluster, name, now, lifetime)


def revoke(
    database: Database,
    cluster: str,
    name: str,
    now: datetime,
    *,
    ids: Sequence[int] = (),
    jtis: Sequence[str] = (),
) -> list[Token]:
    """Take tokens of a service back, by their numbers or the `jti` of JWTs; without any, all that work.

    Returns them. A `jti` that was not issued here is remembered for ever. Raises `NotFound`, and then nothing
    has changed.
    """
    with database.writing() as dal:
        owner, auth, _ = find_service(database, cluster, name)
        held = read_tokens(database, cluster, name)
        named = bool(ids or jtis)
        chosen = _chosen(held, name, ids, jtis) if named else [t for t in held if not t.refusal(now - _LATE)]
        known = {token.jti for token in held}
        for jti in dict.fromkeys(jtis):
            if jti not in known:
                _check_foreign(name, auth, jti)
                chosen.append(_add(dal, database, owner, now, jti=jti, hash=digest(jti)))
        if not chosen:
            raise NotFound(
                "token of service", name, hint="keys of an issuer are taken back with --jti, or removed"
            )
        numbers = [token.id for token in chosen]
        table = dal.token
        update(dal, table.id.belongs(numbers) & (table.revoked == None), revoked=_column(now))  # noqa: E711
        return [token for token in read_tokens(database, cluster, name) if token.id in numbers]


def note_uses(database: Database, uses: Mapping[int, datetime]) -> None:
    """Remember when tokens were last used. Those that are gone, or were used later, are passed over."""
    with database.writing() as dal:
        table = dal.token
        for number, instant in uses.items():
            used = _column(instant)
            earlier = (table.last_used == None) | (table.last_used < used)  # noqa: E711
            update(dal, (table.id == number) & earlier, last_used=used)


def find_service(database: Database, cluster: str, name: str) -> tuple[int, str, str]:
    """Row, `auth` and `jwt_algorithm` of a service. Raises `NotFound`. Callers hold a transaction open."""
    found = database.query(_SERVICE, cluster, name)
    if not found:
        raise NotFound("service", name)
    number, auth, algorithm = found[0]
    return int(number), auth, algorithm


def read_tokens(database: Database, cluster: str | None = None, name: str | None = None) -> list[Token]:
    """All tokens, or those of a cluster, or of one of its services. Callers hold a transaction open."""
    wanted = [(column, value) for column, value in (("c.name", cluster), ("s.name", name)) if value]
    where = " AND ".join(f"{column} = ?" for column, _ in wanted)
    rows = database.query(
        f"{_TOKENS}{where and ' WHERE '}{where} ORDER BY t.id", *(value for _, value in wanted)
    )
    return [_token(row) for row in rows]


def _chosen(held: Sequence[Token], name: str, ids: Sequence[int], jtis: Sequence[str]) -> list[Token]:
    own = {token.id for token in held}
    for number in ids:
        if number not in own:
            raise NotFound("token", number, hint=f"marchproxy token list {name} shows their numbers")
    return [token for token in held if token.id in ids or token.jti in jtis]


def _check_foreign(name: str, auth: str, jti: str) -> None:
    if auth != Auth.JWT:
        raise NotFound("jti", jti, hint=f"service {name} takes no JWTs")
    if not jti or len(jti) > 255 or not jti.isprintable():
        raise InvalidValue("jti", jti, "the jti of a JWT, 1 to 255 printable characters")


def _issue(
    dal: "DAL",
    database: Database,
    signing: Signing,
    cluster: str,
    name: str,
    now: datetime,
    lifetime: timedelta | None,
) -> Issued:
    owner, auth, algorithm = find_service(database, cluster, name)
    if auth == Auth.NONE:
        hint = f"marchproxy service set {name} --auth token"
        raise Conflict(f"service {name!r} wants no credential", hint=hint)
    if auth == Auth.JWT and JwtAlgorithm(algorithm).key_type is not None:
        hint = f"its JWTs are signed elsewhere, with {algorithm}; only their public keys are known here"
        raise Conflict(f"service {name!r} takes JWTs of another issuer", hint=hint)
    if lifetime is not None and not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
        raise InvalidValue("ttl", str(lifetime), f"a time from 1 second to {MAX_LIFETIME.days} days")
    _forget(dal, owner, now)
    if auth == Auth.JWT:
        key, jti = signing(dal, owner), secrets.token_urlsafe(16)
        lifetime = lifetime or JWT_LIFETIME
        record = _add(dal, database, owner, now, jti=jti, hash=digest(jti), lifetime=lifetime)
        return Issued(record, None, key)
    secret = secrets.token_urlsafe(32)
    return Issued(_add(dal, database, owner, now, hash=digest(secret), lifetime=lifetime), secret, None)


def _add(
    dal: "DAL",
    database: Database,
    owner: int,
    now: datetime,
    *,
    hash: str,
    jti: str | None = None,
    lifetime: timedelta | None = None,
) -> Token:
    expires = None if lifetime is None else _column(now + lifetime)
    number = insert(
        dal.token, service=owner, hash=hash, jti=jti, created=_column(now), expires=expires, replaced=None
    )
    return _token(database.query(f"{_TOKENS} WHERE t.id = ?", number)[0])


def _forget(dal: "DAL", owner: int, now: datetime) -> None:
    """A JWT lives by its own words until it expires: whatever happened to it is remembered that long."""
    table, limit = dal.token, _column(now - _REMEMBERED)
    ended = (table.expires < limit) | (
        (table.jti == None) & ((table.replaced < limit) | (table.revoked < limit))  # noqa: E711
    )
    dal((table.service == owner) & ended).delete()


def _token(row: Sequence[Any]) -> Token:
    number, cluster, service, hashed, jti, *instants = row
    created, expires, replaced, revoked, used = (instant and read_instant(instant) for instant in instants)
    return Token(number, qualify(cluster, service), hashed, jti, created, expires, replaced, revoked, used)


def _column(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(microsecond=0, tzinfo=None)
