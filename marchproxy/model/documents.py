"""Entities as JSON documents, both ways: the one form that files, revisions and the control socket share.

A field at its default is left out. Documents stay readable, and a field added by a later version does not
change the hash of what was written before it.
"""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingABC
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from marchproxy.model import entities
from marchproxy.model.address import HostName, address_order, format_address, parse_address
from marchproxy.model.endpoint import Endpoint, parse_endpoint
from marchproxy.model.entities import Action, Auth, Interface, Mapping, Mode, Role, Service
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import parse_interface_name, parse_name, parse_reference, parse_service_name
from marchproxy.model.ports import PortRange, format_ports, merge, parse_port, parse_ports
from marchproxy.model.protocol import Protocol, parse_protocol

type Document = dict[str, Any]
type Entity = Service | Mapping | Interface
type Reader = Callable[[Any, str], Any]


def to_document(entity: Entity) -> Document:
    """The entity as JSON values, without the fields that are at their default."""
    document: Document = {}
    for name, default in _DEFAULTS[type(entity)]:
        value = getattr(entity, name)
        if value != default:
            document[name] = write_field(name, value)
    return document


def read_service(document: object) -> Service:
    """Read a service; raises `InvalidValue` naming service, field and value."""
    return Service(**_read("service", document, _SERVICE, required=("name", "addresses")))


def read_mapping(document: object) -> Mapping:
    """Read a mapping, including the rules that hold between its fields."""
    values = _read("mapping", document, _MAPPING, required=("name", "sources", "destinations", "protocols"))
    mapping = Mapping(**values)
    try:
        _check_mapping(mapping)
    except InvalidValue as error:
        raise error.at(f'mapping "{mapping.name}"') from error
    return mapping


def read_interface(document: object) -> Interface:
    """Read an interface."""
    return Interface(**_read("interface", document, _INTERFACE, required=("name", "role")))


def read_field(entity: type[Entity], name: str, raw: object) -> Any:
    """Read one field of an entity from its JSON value."""
    return _FIELDS[entity][name](raw, name)


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
    """Read `none`, `tcp`, `icmp`, `http:PATH` or `https:PATH`; a path has at most 1024 characters."""
    kind, colon, path = text.strip().partition(":")
    plain = kind in ("none", "tcp", "icmp") and not colon
    http = kind in ("http", "https") and _is_path(path)
    if not (plain or http):
        raise InvalidValue(field, text, "none, tcp, icmp, http:/PATH or https:/PATH")
    return text.strip()


def write_field(name: str, value: Any) -> Any:
    """One field as a JSON value, also where it is at its default."""
    if name == "addresses":
        return [format_address(address) for address in value]
    if name == "ports":
        return format_ports(value)
    if isinstance(value, tuple):
        return [str(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, StrEnum | Endpoint | HostName | PortRange):
        return str(value)
    return value


def _read(
    kind: str, document: object, readers: MappingABC[str, Reader], *, required: Sequence[str]
) -> Document:
    if not isinstance(document, dict):
        raise InvalidValue(kind, document, "an object with " + ", ".join(required))
    where = f'{kind} "{document.get("name", "without a name")}"'
    for name in required:
        if name not in document:
            raise InvalidValue(name, None, "a value: it is required", where=where)
    values: Document = {}
    for name, raw in document.items():
        if name not in readers:
            raise InvalidValue("field", name, "one of " + ", ".join(readers), where=where)
        try:
            values[name] = readers[name](raw, name)
        except InvalidValue as error:
            raise error.at(where) from error
    return values


def _check_mapping(mapping: Mapping) -> None:
    portless = mapping.protocols == (Protocol.ICMP,)
    if portless and (mapping.ports or mapping.listen):
        raise InvalidValue("ports" if mapping.ports else "listen", "icmp", "no ports: ICMP has none")
    if mapping.listen and Protocol.ICMP in mapping.protocols:
        raise InvalidValue("protocols", "icmp", "tcp or udp for a mapping that listens")
    routed = mapping.host is not None or mapping.path_prefix is not None
    if routed and not set(mapping.protocols) <= {Protocol.HTTP, Protocol.HTTPS, Protocol.GRPC}:
        expected = "http, https or grpc with a host or path prefix"
        raise InvalidValue("protocols", ",".join(mapping.protocols), expected)


def _text(raw: Any, field: str) -> str:
    if not isinstance(raw, str):
        raise InvalidValue(field, raw, "text")
    return raw


def _description(raw: Any, field: str) -> str:
    text = _text(raw, field)
    if len(text) > 500 or not text.isprintable():
        raise InvalidValue(field, text[:60], "at most 500 printable characters on one line")
    return text


def _whole(low: int, high: int) -> Reader:
    def read(raw: Any, field: str) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise InvalidValue(field, raw, f"a whole number from {low} to {high}")
        return raw

    return read


def _flag(raw: Any, field: str) -> bool:
    if not isinstance(raw, bool):
        raise InvalidValue(field, raw, "true or false")
    return raw


def _optional(reader: Reader) -> Reader:
    return lambda raw, field: None if raw is None else reader(raw, field)


def _parsed(parse: Callable[..., Any]) -> Reader:
    return lambda raw, field: parse(_text(raw, field), field=field)


def _choice(enum: type[StrEnum]) -> Reader:
    def read(raw: Any, field: str) -> StrEnum:
        try:
            return enum(_text(raw, field).lower())
        except ValueError:
            raise InvalidValue(field, raw, "one of " + ", ".join(enum)) from None

    return read


def _each(parse: Callable[..., Any], *, order: Callable[[Any], Any], empty: bool = False) -> Reader:
    def read(raw: Any, field: str) -> tuple[Any, ...]:
        if not isinstance(raw, list) or not (raw or empty):
            raise InvalidValue(field, raw, "a list" if empty else "a list with at least one entry")
        return tuple(sorted({parse(_text(item, field), field=field) for item in raw}, key=order))

    return read


def _read_ports(raw: Any, field: str) -> tuple[PortRange, ...]:
    if raw == "":
        return ()
    if isinstance(raw, list):
        return merge([item for part in raw for item in parse_ports(str(part), field=field)])
    return parse_ports(str(raw) if isinstance(raw, int) else _text(raw, field), field=field)


def _read_port(raw: Any, field: str) -> int:
    return parse_port(raw, field=field)


def _read_host(text: str, *, field: str) -> str:
    name = parse_address(text.removeprefix("*."), field=field)
    if not isinstance(name, HostName):
        raise InvalidValue(field, text, "a host name, or *.NAME for every name below it")
    return f"*.{name}" if text.startswith("*.") else str(name)


def _read_path(text: str, *, field: str) -> str:
    if not _is_path(text):
        raise InvalidValue(
            field, text, "a path that starts with '/', of at most 1024 characters without spaces"
        )
    return text


def _is_path(text: str) -> bool:
    return text.startswith("/") and text.isprintable() and " " not in text and len(text) <= 1024


_PROTOCOL_ORDER = {protocol: position for position, protocol in enumerate(Protocol)}

_SERVICE: dict[str, Reader] = {
    "name": _parsed(parse_service_name),
    "addresses": _each(parse_address, order=address_order),
    "port": _optional(_read_port),
    "protocol": _optional(_parsed(parse_protocol)),
    "collection": _optional(_parsed(parse_name)),
    "tags": _each(parse_name, order=str, empty=True),
    "auth": _choice(Auth),
    "weight": _whole(1, entities.MAX_WEIGHT),
    "tls": _flag,
    "health": _parsed(parse_health),
    "health_interval": _optional(_whole(1, 3600)),
    "description": _description,
}

_MAPPING: dict[str, Reader] = {
    "name": _parsed(parse_name),
    "sources": _each(parse_reference, order=str),
    "destinations": _each(parse_reference, order=str),
    "protocols": _each(parse_protocol, order=_PROTOCOL_ORDER.__getitem__),
    "ports": _read_ports,
    "listen": _optional(_parsed(parse_endpoint)),
    "priority": _whole(0, entities.MAX_PRIORITY),
    "action": _choice(Action),
    "host": _optional(_parsed(_read_host)),
    "path_prefix": _optional(_parsed(_read_path)),
    "auth_required": _flag,
    "expires": _optional(_parsed(parse_expiry)),
    "description": _description,
}

_INTERFACE: dict[str, Reader] = {
    "name": _parsed(parse_interface_name),
    "role": _choice(Role),
    "mode": _choice(Mode),
}

_FIELDS: dict[type[Entity], dict[str, Reader]] = {Service: _SERVICE, Mapping: _MAPPING, Interface: _INTERFACE}

_DEFAULTS: dict[type[Entity], tuple[tuple[str, object], ...]] = {
    entity: tuple((field.name, field.default) for field in fields(entity)) for entity in _FIELDS
}
