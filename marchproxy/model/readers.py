"""Readers of single fields: from a JSON value to a value of ours, or `InvalidValue` that names the field.

A reader takes the raw value and the field's name. `documents.py` puts them together to entities.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from marchproxy.model.address import (
    IPAddress,
    address_order,
    format_address,
    parse_address,
    parse_host_name,
    parse_ip,
)
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.entities import CUT, GRACE, KEEP, MAX_GRACE, MAX_SHARE
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import parse_service_name
from marchproxy.model.ports import PortRange, merge, parse_port, parse_ports

type Reader = Callable[[Any, str], Any]

DNS_PORT = 53
_GRPC_SERVICE = re.compile(r"[A-Za-z0-9_./-]{1,255}")


def parse_expiry(text: str, *, field: str = "expires") -> datetime:
    """Read an RFC 3339 instant, to the second.

    A zone is required, because "midnight" without one cuts traffic at the wrong time.
    """
    try:
        instant = datetime.fromisoformat(text.strip())
        if instant.tzinfo is None:
            raise ValueError("without a zone")
        return instant.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        expected = "an instant with a zone, such as 2026-12-31T23:59:59Z (RFC 3339)"
        raise InvalidValue(field, text, expected) from None


def parse_health(text: str, *, field: str = "health") -> str:
    """Read `none`, `tcp`, `icmp`, `http:PATH`, `https:PATH`; `grpc`, `grpcs`, each also with `:SERVICE`.

    A path has at most 1024 characters, a service 255.
    """
    kind, colon, rest = text.strip().partition(":")
    plain = kind in ("none", "tcp", "icmp", "grpc", "grpcs") and not colon
    http = kind in ("http", "https") and _is_path(rest)
    grpc = kind in ("grpc", "grpcs") and _GRPC_SERVICE.fullmatch(rest)
    if not (plain or http or grpc):
        expected = "none, tcp, icmp, http:/PATH, https:/PATH, grpc[:SERVICE] or grpcs[:SERVICE]"
        raise InvalidValue(field, text, expected)
    return text.strip()


def parse_on_expiry(text: str, *, field: str = "on_expiry") -> str:
    """Read `keep`, `cut` or `grace:SECONDS`, at most `MAX_GRACE`; no grace at all is a cut."""
    said = text.strip().lower()
    digits = said.removeprefix(GRACE)
    if said in (KEEP, CUT):
        return said
    plain = said.startswith(GRACE) and digits.isascii() and digits.isdigit() and len(digits) < 10
    if not plain or int(digits) > MAX_GRACE:
        expected = f"{KEEP}, {CUT} or {GRACE}SECONDS, at most {MAX_GRACE} seconds"
        raise InvalidValue(field, text, expected)
    return f"{GRACE}{int(digits)}" if int(digits) else CUT


RATES = {"s": 1, "m": 60, "h": 3600}
"""Seconds of the units of `parse_rate`."""
MAX_REQUESTS = 1_000_000


def parse_rate(text: str, *, field: str) -> str:
    """Read `N/s`, `N/m` or `N/h`, N from 1 to `MAX_REQUESTS`; `/sec`, `/min` and the like will do."""
    digits, slash, unit = text.strip().lower().partition("/")
    unit = unit.strip()
    known = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h"}.get(unit, unit)
    plain = slash and known in RATES and digits.strip().isascii() and digits.strip().isdigit()
    if not plain or len(digits) > 8 or not 1 <= int(digits) <= MAX_REQUESTS:
        raise InvalidValue(field, text, f"a number of 1 to {MAX_REQUESTS} and a unit: 100/s, 10/m or 5000/h")
    return f"{int(digits)}/{known}"


def parse_jwks_url(text: str, *, field: str = "jwks_url") -> str:
    """Read the address of a JWK Set: https, or http to loopback, without user, password or fragment."""
    said = text.strip()
    try:
        parts = urlsplit(said)
        named = parts.hostname and parts.port != 0 and said.isascii() and said.isprintable()
    except ValueError:
        named = None
    plain = named and " " not in said and len(said) <= 1024 and "@" not in parts.netloc and "#" not in said
    if not plain or not (
        parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))
    ):
        raise InvalidValue(field, text, "an address such as https://issuer.example/keys.json")
    return said


def parse_claim(text: str, *, field: str) -> str:
    """Read what a claim of a JWT must be: 1 to 255 printable characters."""
    if not text or len(text) > 255 or not text.isprintable():
        raise InvalidValue(field, text, "1 to 255 printable characters")
    return text


def parse_path(text: str, *, field: str) -> str:
    """Read the path of a URL, or its beginning."""
    if not _is_path(text):
        raise InvalidValue(
            field, text, "a path that starts with '/', of at most 1024 characters without spaces"
        )
    return text


def parse_host_rule(text: str, *, field: str) -> str:
    """Read a host name, or `*.NAME` for every name below it; in canonical text."""
    try:
        return parse_host_name(text, field=field, wildcard=True).name
    except InvalidValue as error:
        raise InvalidValue(field, text, "a host name, or *.NAME for every name below it") from error


def parse_share(text: str, *, field: str) -> str:
    """Read `SERVICE=N`: what share of new flows goes to a service, 0 to `MAX_SHARE`."""
    name, _, digits = text.strip().partition("=")
    plain = digits.isascii() and digits.isdigit() and len(digits) < 5
    if not plain or int(digits) > MAX_SHARE:
        raise InvalidValue(field, text, f"SERVICE=N with a share from 0 to {MAX_SHARE}, such as shop=90")
    return f"{parse_service_name(name, field=field)}={int(digits)}"


def parse_mirror(text: str, *, field: str) -> str:
    """Read `SERVICE`, or `SERVICE=PERCENT` from 1 to 100: who gets copies of requests, and of how many."""
    name, equals, digits = text.strip().partition("=")
    plain = digits.isascii() and digits.isdigit() and len(digits) < 4
    if equals and not (plain and 1 <= int(digits) <= 100):
        raise InvalidValue(field, text, "SERVICE, or SERVICE=PERCENT from 1 to 100, such as canary=10")
    found = parse_service_name(name, field=field)
    return f"{found}={int(digits)}" if equals and int(digits) != 100 else found


def parse_blocked(text: str, *, field: str) -> str:
    """Read an address, prefix or host name (`*.NAME` for every name below it); in canonical text."""
    return format_address(parse_address(text, field=field))


def parse_single(text: str, *, field: str) -> str:
    """Read one address; in canonical text."""
    return str(parse_ip(text, field=field))


def parse_nat_address(text: str, *, field: str) -> str:
    """Read an address that packets can come from; in canonical text."""
    address = parse_ip(text, field=field)
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise InvalidValue(field, text, "an address of the appliance that answers can be sent to")
    return str(address)


def parse_resolver(text: str, *, field: str) -> str:
    """Read a DNS server, `ADDR`, `ADDR:PORT` or `[v6]:PORT`; port 53 is left out of the canonical text."""
    address, port = resolver_address(text, field=field)
    return str(address if port == DNS_PORT else Endpoint(address, port))


def resolver_address(text: str, *, field: str = "resolvers") -> tuple[IPAddress, int]:
    """The address and port of a DNS server."""
    try:
        return parse_ip(text, field=field), DNS_PORT
    except InvalidValue:
        pass
    try:
        endpoint = parse_endpoint(text, field=field)
    except InvalidValue:
        endpoint = Endpoint(None, DNS_PORT)
    if endpoint.address is None:
        raise InvalidValue(field, text, "the address of a DNS server: ADDR, ADDR:PORT or [IPV6]:PORT")
    return endpoint.address, endpoint.port


def text(raw: Any, field: str) -> str:
    """A text."""
    if not isinstance(raw, str):
        raise InvalidValue(field, raw, "text")
    return raw


def line(raw: Any, field: str) -> str:
    """At most 500 printable characters."""
    said = text(raw, field)
    if len(said) > 500 or not said.isprintable():
        raise InvalidValue(field, said[:60], "at most 500 printable characters on one line")
    return said


def sha256(raw: Any, field: str) -> str:
    """A SHA-256 in hexadecimal."""
    said = text(raw, field)
    if len(said) != 64 or not set(said) <= set("0123456789abcdef"):
        raise InvalidValue(field, said, "a SHA-256: 64 hexadecimal digits in lower case")
    return said


def flag(raw: Any, field: str) -> bool:
    """True or false."""
    if not isinstance(raw, bool):
        raise InvalidValue(field, raw, "true or false")
    return raw


def only(value: str) -> Reader:
    """This text and no other."""

    def read(raw: Any, field: str) -> str:
        if raw != value:
            raise InvalidValue(field, raw, value)
        return value

    return read


def port(raw: Any, field: str) -> int:
    """A port number."""
    return parse_port(raw, field=field)


def ports(raw: Any, field: str) -> tuple[PortRange, ...]:
    """A port set, as text, as a number or as a list of these."""
    if raw == "":
        return ()
    if isinstance(raw, list):
        return merge([item for part in raw for item in parse_ports(str(part), field=field)])
    return parse_ports(str(raw) if isinstance(raw, int) else text(raw, field), field=field)


def whole(low: int, high: int) -> Reader:
    """A whole number within limits, both included."""

    def read(raw: Any, field: str) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise InvalidValue(field, raw, f"a whole number from {low} to {high}")
        return raw

    return read


def optional(reader: Reader) -> Reader:
    """What `reader` reads, or null."""
    return lambda raw, field: None if raw is None else reader(raw, field)


def parsed(parse: Callable[..., Any]) -> Reader:
    """A text that `parse` understands."""
    return lambda raw, field: parse(text(raw, field), field=field)


def choice(enum: type[StrEnum]) -> Reader:
    """One of the enum's texts, in any case."""

    by_text = {item.lower(): item for item in enum}

    def read(raw: Any, field: str) -> StrEnum:
        try:
            return by_text[text(raw, field).lower()]
        except KeyError:
            raise InvalidValue(field, raw, "one of " + ", ".join(enum)) from None

    return read


def choices(enum: type[StrEnum]) -> Reader:
    """A list of the enum's texts, each once, in the enum's order."""
    one, order = choice(enum), list(enum)

    def read(raw: Any, field: str) -> tuple[StrEnum, ...]:
        if not isinstance(raw, list):
            raise InvalidValue(field, raw, "a list")
        return tuple(sorted({one(item, field) for item in raw}, key=order.index))

    return read


def each(parse: Callable[..., Any], *, order: Callable[[Any], Any], empty: bool = False) -> Reader:
    """A list of texts that `parse` understands, each once, sorted."""
    read = in_order(parse, empty=empty)
    return lambda raw, field: tuple(sorted(read(raw, field), key=order))


def in_order(parse: Callable[..., Any], *, empty: bool = True) -> Reader:
    """A list of texts that `parse` understands, each once, where it comes first."""

    def read(raw: Any, field: str) -> tuple[Any, ...]:
        if not isinstance(raw, list) or not (raw or empty):
            raise InvalidValue(field, raw, "a list" if empty else "a list with at least one entry")
        return tuple(dict.fromkeys(parse(text(item, field), field=field) for item in raw))

    return read


def by_address(canonical: str) -> tuple[int, int, int, str]:
    """Sort key of addresses in canonical text."""
    return address_order(parse_address(canonical))


def _is_loopback(host: str | None) -> bool:
    try:
        return parse_ip(host or "", field="host").is_loopback
    except InvalidValue:
        return host == "localhost"


def _is_path(said: str) -> bool:
    return said.startswith("/") and said.isprintable() and " " not in said and len(said) <= 1024
