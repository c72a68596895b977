"""All credentials that there are, at one moment: what opens what, without I/O and without a clock.

A token is found by its SHA-256 in a dictionary. That compares in no constant time, and need not: how far a
comparison got would tell about the hash of 32 random bytes, from which nobody can choose the next guess.
JWTs are compared by their signatures, in constant time with HS*.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from marchproxy.dataplane.credentials.jws import LEEWAY, Jwt, NotJwt, read
from marchproxy.dataplane.credentials.signatures import Verifier
from marchproxy.model.presented import MAX_SECRET, Presented
from marchproxy.model.reason import Reason
from marchproxy.store.tokens import Token, digest

MOST_SEEN = 16_384
"""JWTs whose signature is remembered, so that a client's next connection costs microseconds."""
MOST_CHECKS = 16
"""Signatures that are tried for one JWT: some milliseconds of RSA, whatever a stranger sends."""
_JTI = "jti:"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a credential has opened."""

    service: str
    """The qualified name of the service whose credential it is."""
    token: str
    """Its number in `token list`; `jti:…` of a JWT that was not issued here, `jti:` where it has none."""
    expires: datetime | None
    """From this instant (UTC) on it opens nothing; None: it has no end."""


@dataclass(frozen=True, slots=True)
class JwtService:
    """A service that takes JWTs."""

    name: str
    """The qualified name."""
    verifier: Verifier
    audience: str | None = None
    """What `aud` must name; None: the service's name, if there is an `aud`."""
    issuer: str | None = None
    """What `iss` must be; None: anything."""

    def claimed(self, jwt: Jwt) -> bool:
        """Whether a JWT says that it is for this service; costs nothing beside a signature."""
        if jwt.algorithm != self.verifier.algorithm or (
            self.issuer is not None and jwt.issuer != self.issuer
        ):
            return False
        if jwt.audience is None:
            return self.audience is None
        return (self.audience or self.name) in jwt.audience


@dataclass(frozen=True, slots=True)
class _Signed:
    """What is kept of a JWT whose signature was right."""

    service: str
    expires: float
    not_before: float
    jti: str | None


class CredentialBook:
    """What opens what. A change of tokens or keys makes a new book; only what it has seen changes in one."""

    def __init__(
        self,
        tokens: Iterable[Token] = (),
        *,
        token_services: Collection[str] = (),
        jwt_services: Iterable[JwtService] = (),
        cookie_key: bytes = b"",
    ) -> None:
        """`tokens` of services that do not take them, or no longer, open nothing."""
        self.cookie_key = cookie_key
        """What cookies are made with that keep clients with one backend; empty: none are made."""
        self._jwt = {service.name: service for service in jwt_services}
        self._tokens: dict[str, Token] = {}
        self._issued: dict[tuple[str, str], Token] = {}
        """JWTs with a record, by service and `jti`."""
        for token in tokens:
            if token.jti is None and token.service in token_services:
                self._tokens[token.hash] = token
            elif token.jti is not None and token.service in self._jwt:
                self._issued[token.service, token.jti] = token
        self._seen: OrderedDict[str, dict[str, _Signed | None]] = OrderedDict()
        """By hash: what JWTs with a right signature say, and services for which they have none."""
        self.unknown_keys: set[str] = set()
        """Services for which a JWT came whose `kid` is that of no key: their issuer may have a new one."""

    def verify(
        self, presented: Presented | None, services: Collection[str], now: datetime
    ) -> Verified | Reason:
        """Judge a credential. `services`: the qualified names of those whose credential would do.

        Returns what it opened, or AUTH_MISSING, AUTH_INVALID, AUTH_EXPIRED or AUTH_REVOKED. The latter two
        are told to nobody who does not hold a credential that was right once.
        """
        if presented is None or not presented.secret:
            return Reason.AUTH_MISSING
        secret, claimed = presented.secret, presented.service
        if len(secret) > MAX_SECRET:
            return Reason.AUTH_INVALID
        if claimed is not None:
            services = [name for name in services if claimed in (name, name.rpartition("/")[2])]
        # Tokens are base64url, which has no dots.
        return self._jwt_of(secret, services, now) if "." in secret else self._token(secret, services, now)

    def _token(self, secret: str, services: Collection[str], now: datetime) -> Verified | Reason:
        token = self._tokens.get(digest(secret))
        if token is None or token.service not in services:
            return Reason.AUTH_INVALID
        return token.refusal(now) or Verified(token.service, str(token.id), token.ends)

    def _jwt_of(self, secret: str, services: Collection[str], now: datetime) -> Verified | Reason:
        among = [self._jwt[name] for name in sorted(services) if name in self._jwt]
        refusal = Reason.AUTH_INVALID
        for jwt in self._signed(secret, among):
            outcome = self._judge(jwt, now)
            if isinstance(outcome, Verified):
                return outcome
            refusal = outcome
        return refusal

    def _signed(self, secret: str, among: Sequence[JwtService]) -> list[_Signed]:
        """For which of the services a JWT has a signature that is right, whatever the time."""
        key = digest(secret)
        seen = self._seen.get(key, {})
        untried = [service for service in among if service.name not in seen]
        if untried:
            tried = self._try(secret, untried)
            if seen or any(tried.values()):
                seen = self._seen[key] = seen | tried
        if seen:
            self._seen.move_to_end(key)
        if len(self._seen) > MOST_SEEN:
            self._seen.popitem(last=False)
        found = (seen.get(service.name) for service in among)
        return [jwt for jwt in found if jwt is not None]

    def _try(self, secret: str, services: Iterable[JwtService]) -> dict[str, _Signed | None]:
        try:
            jwt = read(secret)
        except NotJwt:
            return {}
        tried: dict[str, _Signed | None] = {}
        left = MOST_CHECKS
        for service in services:
            tried[service.name] = None
            if not service.claimed(jwt):
                continue
            checks = service.verifier.candidates(jwt.kid)[:left]
            left -= len(checks)
            if any(check(jwt.signed, jwt.signature) for check in checks):
                tried[service.name] = _Signed(service.name, jwt.expires, jwt.not_before, jwt.jti)
            elif jwt.kid is not None and jwt.kid not in service.verifier.names:
                self.unknown_keys.add(service.name)
        return tried

    def _judge(self, jwt: _Signed, now: datetime) -> Verified | Reason:
        record = self._issued.get((jwt.service, jwt.jti)) if jwt.jti is not None else None
        ends = datetime.fromtimestamp(jwt.expires + LEEWAY, UTC)
        if record is not None:
            if record.revoked is not None:
                return Reason.AUTH_REVOKED
            ends = min(ends, record.replaced or ends)
        if now >= ends:
            return Reason.AUTH_EXPIRED
        if now.timestamp() < jwt.not_before - LEEWAY:
            return Reason.AUTH_INVALID
        return Verified(jwt.service, str(record.id) if record else f"{_JTI}{jwt.jti or ''}", ends)
