"""Browsers that stay with one backend: a cookie whose value stands for it.

The value is a keyed hash of mapping, service, address and port: it tells nothing, nobody can make one for
another backend, and nothing has to be remembered. What is none of ours, or of a backend that takes no more
requests, is as no cookie at all. Values are found in a dictionary, which compares in no constant time: how
far a comparison got tells about a hash that nobody can choose.
"""

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hmac import digest

from marchproxy.dataplane.http.messages import Request
from marchproxy.model.address import IPAddress
from marchproxy.policy.plan import Backend, Rule

_MOST = 1024
"""Rules that are prepared at one time."""
_LENGTH = 22
"""Characters of a value: 132 bits."""


type _Place = tuple[str, IPAddress, int]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The cookies of one rule, under one key."""

    rule: Rule
    key: bytes
    name: str
    backends: dict[str, Backend]
    """By value, those that take requests."""
    values: dict[_Place, str]
    """Not by backend: a kept connection may be one of another mapping, where the same place weighs other."""


class Sticky:
    """Cookies of the rules that want them."""

    def __init__(self) -> None:
        self._prepared: dict[int, _Prepared] = {}

    def backend(self, rule: Rule, request: Request, key: bytes) -> Backend | None:
        """The backend that a request's cookie stands for; None: it has none that does. No key: no cookies."""
        found = self._of(rule, key)
        return found.backends.get(_value(request, found.name)) if found else None

    def cookie(self, rule: Rule, request: Request, backend: Backend, key: bytes, *, secure: bool) -> str:
        """What the client is to keep for the next request; empty: it has that already.

        Until the browser ends, not for scripts, and not for requests that other sites make (RFC 6265).
        """
        found = self._of(rule, key)
        value = found.values.get(_place(backend), "") if found else ""
        if found is None or not value or _value(request, found.name) == value:
            return ""
        return f"{found.name}={value}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    def _of(self, rule: Rule, key: bytes) -> _Prepared | None:
        if not key or rule.pool is None:
            return None
        found = self._prepared.get(id(rule))
        if found is None or found.rule is not rule or found.key != key:
            if len(self._prepared) >= _MOST:
                self._prepared.clear()
            values = {
                _place(each): _hashed(key, rule.mapping, *map(str, _place(each)))
                for each in rule.pool.backends
            }
            backends = {values[_place(each)]: each for each in rule.pool.taking}
            name = f"marchproxy-{_hashed(key, rule.mapping)[:8]}"
            found = self._prepared[id(rule)] = _Prepared(rule, key, name, backends, values)
        return found


def _place(backend: Backend) -> _Place:
    return backend.service, backend.address, backend.port


def _hashed(key: bytes, *parts: str) -> str:
    return urlsafe_b64encode(digest(key, "\0".join(parts).encode(), "sha256"))[:_LENGTH].decode()


def _value(request: Request, name: str) -> str:
    for field, said in request.fields:
        if field == "cookie":
            for part in said.split(";"):
                found, _, value = part.strip().partition("=")
                if found == name:
                    return value
    return ""
