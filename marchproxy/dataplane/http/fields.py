"""Fields that go on with a message, and those that we put there ourselves."""

from collections.abc import Collection, Iterable

from marchproxy.dataplane.http.messages import Fields
from marchproxy.model.httpfields import CONNECTION, OUR_BEGINNINGS, OURS

VIA = "marchproxy"
"""Whom `Via` names (RFC 9110 section 7.6.3)."""

_NOT_FROM_CLIENTS = CONNECTION | OURS
_NEVER_TRAILING = _NOT_FROM_CLIENTS | {
    *("host", "authorization", "cookie", "set-cookie", "trailer", "expect", "range", "via", "location"),
    *("cache-control", "age", "date", "expires", "pragma", "vary", "www-authenticate"),
}
_NOT_FROM_BACKENDS = CONNECTION | {"proxy-authenticate", "x-marchproxy-reason", "alt-svc"}
"""`Alt-Svc` says where else a server is (RFC 7838), which is not where clients of ours go."""


def from_client(fields: Iterable[tuple[str, str]], named: Collection[str]) -> Fields:
    """What of a request's fields goes on; `named`: what `Connection` lists. Names are in lower case."""
    return tuple([field for field in _kept(fields, _NOT_FROM_CLIENTS, named) if not _is_ours(field[0])])


def from_backend(fields: Iterable[tuple[str, str]], named: Collection[str]) -> Fields:
    """The same of a response's."""
    return _kept(fields, _NOT_FROM_BACKENDS, named)


def may_trail(name: str) -> bool:
    """Whether a field means something behind a body: not what says where a message ends, where it goes, who
    asks, or what the body is (RFC 9110 section 6.5.1), for some servers take trailers for fields of the head.
    """
    plain = name.replace("_", "-")
    return plain not in _NEVER_TRAILING and not plain.startswith((*OUR_BEGINNINGS, "content-"))


def about_client(source: str, scheme: str, authority: str, version: str) -> Fields:
    """What a backend is told about where a request comes from (RFC 7239, and what is older than that)."""
    node = f'"[{source}]"' if ":" in source else source
    forwarded = f"for={node};proto={scheme}"
    fields = [("x-forwarded-for", source), ("x-forwarded-proto", scheme)]
    if authority:
        fields.append(("x-forwarded-host", authority))
        forwarded += f';host="{authority}"'
    return (*fields, ("forwarded", forwarded), ("via", f"{version} {VIA}"))


def _kept(fields: Iterable[tuple[str, str]], dropped: frozenset[str], named: Collection[str]) -> Fields:
    if named:
        dropped = dropped.union(named)
    # A server that hands fields to CGI or WSGI does not tell '_' and '-' apart.
    return tuple(
        [
            field
            for field in fields
            if field[0] not in dropped and ("_" not in field[0] or field[0].replace("_", "-") not in dropped)
        ]
    )


def _is_ours(name: str) -> bool:
    return name.replace("_", "-").startswith(OUR_BEGINNINGS)
