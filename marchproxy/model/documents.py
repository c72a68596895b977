"""Entities as JSON documents, both ways: the one form that files, revisions and the control socket share.

A field at its default is left out. Documents stay readable, and a field added by a later version does not
change the hash of what was written before it.
"""

from collections.abc import Callable
from collections.abc import Mapping as MappingABC
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from marchproxy.model import (
    actions,
    address,
    appliance,
    clientnames,
    collector,
    conditions,
    entities,
    names,
    readers,
    rules,
)
from marchproxy.model.appliance import ApplianceListener, Block, BlockList, Limit, Settings
from marchproxy.model.endpoint import Endpoint, Endpoints, parse_endpoint, parse_endpoints
from marchproxy.model.entities import ClusterHead, Interface, Mapping, Service
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import format_ports
from marchproxy.model.protocol import Protocol, parse_protocol
from marchproxy.model.publickey import PublicKey, parse_keys
from marchproxy.model.readers import Reader, choice, choices, each, flag, line, optional, parsed, whole

type Document = dict[str, Any]
type Entity = (
    Service | Mapping | Interface | ClusterHead | Block | BlockList | Limit | ApplianceListener | Settings
)


def to_document(entity: Entity) -> Document:
    """The entity as JSON values, without the fields that are at their default."""
    document: Document = {}
    for name, default in _DEFAULTS[type(entity)]:
        value = getattr(entity, name)
        if value != default:
            document[name] = write_field(name, value)
    return document


def read_entity[T: Entity](entity: type[T], document: object) -> T:
    """Read an entity, including the rules that hold between its fields.

    Raises `InvalidValue` naming kind, name, field and value.
    """
    form = _FORMS[entity]
    if not isinstance(document, dict):
        expected = "an object with " + ", ".join(_REQUIRED[entity] or form.readers)
        raise InvalidValue(form.label, document, expected)
    try:
        made = entity(**_values(form, _REQUIRED[entity], document))
        form.check(made)
    except InvalidValue as error:
        named = "name" in document or "name" in _REQUIRED[entity]
        name = f' "{document.get("name", "without a name")}"' if named else ""
        raise error.at(form.label + name) from error
    return made


def read_service(document: object) -> Service:
    """Read a service."""
    return read_entity(Service, document)


def read_mapping(document: object) -> Mapping:
    """Read a mapping."""
    return read_entity(Mapping, document)


def read_interface(document: object) -> Interface:
    """Read an interface."""
    return read_entity(Interface, document)


def read_field(entity: type[Entity], name: str, raw: object) -> Any:
    """Read one field of an entity from its JSON value."""
    return _FORMS[entity].readers[name](raw, name)


def write_field(name: str, value: Any) -> Any:
    """One field as a JSON value, also where it is at its default."""
    if name == "ports":
        return format_ports(value)
    return [_write(item) for item in value] if isinstance(value, tuple) else _write(value)


def _write(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, IPv4Network | IPv6Network):
        return address.format_address(value)
    if isinstance(value, StrEnum | Endpoint | Endpoints | address.HostName | collector.Collector):
        return str(value)
    if isinstance(value, PublicKey):
        return value.document()
    return value


@dataclass(frozen=True, slots=True)
class _Form:
    """How the documents of one kind of entity are read."""

    label: str
    readers: MappingABC[str, Reader]
    check: Callable[[Any], None] = lambda entity: None
    derived: MappingABC[str, Callable[[MappingABC[str, Any]], Any]] = field(default_factory=dict)
    """Fields that a document may leave out because others say them."""


def _values(form: _Form, required: tuple[str, ...], document: Document) -> dict[str, Any]:
    for name in required:
        if name not in document:
            raise InvalidValue(name, None, "one: it is required")
    values = {}
    for name, raw in document.items():
        if name not in form.readers:
            raise InvalidValue("field", name, "one of " + ", ".join(form.readers))
        values[name] = form.readers[name](raw, name)
    for name, derive in form.derived.items():
        values.setdefault(name, derive(values))
    return values


_PROTOCOL_ORDER = {protocol: position for position, protocol in enumerate(Protocol)}
_SECONDS = whole(1, appliance.MAX_TIMEOUT)
_RATE = optional(whole(1, appliance.MAX_RATE))
_EXPIRES = optional(parsed(readers.parse_expiry))

_FORMS: dict[type[Any], _Form] = {
    ClusterHead: _Form(
        "cluster",
        {
            "name": parsed(names.parse_name),
            "audit": flag,
            "syslog": optional(parsed(collector.parse_syslog)),
            "syslog_ca": parsed(collector.parse_certificates),
            "log_auth": flag,
            "log_netflow": flag,
            "log_access": flag,
            "log_debug": flag,
            "ipfix": optional(parsed(collector.parse_ipfix)),
            "log_http": optional(parsed(collector.parse_log_url)),
            "access_log": flag,
        },
        rules.check_cluster,
    ),
    Service: _Form(
        "service",
        {
            "name": parsed(names.parse_service_name),
            "addresses": each(address.parse_address, order=address.address_order),
            "port": optional(readers.port),
            "protocol": optional(parsed(parse_protocol)),
            "collection": optional(parsed(names.parse_name)),
            "tags": each(names.parse_name, order=str, empty=True),
            "auth": choice(entities.Auth),
            "weight": whole(1, entities.MAX_WEIGHT),
            "tls": flag,
            "tls_ca": parsed(collector.parse_certificates),
            "tls_cert": optional(parsed(names.parse_name)),
            "health": parsed(readers.parse_health),
            "health_interval": optional(whole(1, 3600)),
            "health_timeout": optional(whole(1, 60)),
            "health_rise": optional(whole(1, 100)),
            "health_fall": optional(whole(1, 100)),
            "drain": each(readers.parse_single, order=readers.by_address, empty=True),
            "jwt_algorithm": choice(entities.JwtAlgorithm),
            "jwt_audience": optional(parsed(readers.parse_claim)),
            "jwt_issuer": optional(parsed(readers.parse_claim)),
            "jwt_keys": lambda raw, field: parse_keys(raw, field=field),
            "jwks_url": optional(parsed(readers.parse_jwks_url)),
            "description": line,
        },
        rules.check_service,
    ),
    Mapping: _Form(
        "mapping",
        {
            "name": parsed(names.parse_name),
            "sources": each(names.parse_reference, order=str),
            "destinations": each(names.parse_reference, order=str, empty=True),
            "protocols": each(parse_protocol, order=_PROTOCOL_ORDER.__getitem__),
            "ports": readers.ports,
            "listen": optional(parsed(parse_endpoints)),
            "priority": whole(0, entities.MAX_PRIORITY),
            "action": choice(entities.Action),
            "host": optional(parsed(readers.parse_host_rule)),
            "path_prefix": optional(parsed(readers.parse_path)),
            "path": optional(parsed(readers.parse_path)),
            "methods": each(conditions.parse_method, order=str, empty=True),
            "headers": each(conditions.parse_header_condition, order=str, empty=True),
            "query": each(conditions.parse_query_condition, order=str, empty=True),
            "auth_required": flag,
            "expires": _EXPIRES,
            "audit": flag,
            "balance": choice(entities.Balance),
            "on_expiry": parsed(readers.parse_on_expiry),
            "sni": flag,
            "sni_missing": choice(entities.WithoutSni),
            "tls": optional(parsed(names.parse_name)),
            "proxy_from": each(address.parse_prefix, order=address.address_order, empty=True),
            "send_proxy": choice(entities.SendProxy),
            "connect_timeout": optional(whole(1, 60)),
            "response_timeout": optional(whole(1, 3600)),
            "idle_timeout": optional(whole(1, 3600)),
            "retry_on": choices(entities.Retry),
            "retry_budget": whole(1, 100),
            "eject_after": whole(0, 1000),
            "eject_for": whole(1, 3600),
            "eject_most": whole(1, 100),
            "max_requests": whole(0, 65535),
            "max_waiting": whole(0, 65535),
            "limit_requests": optional(parsed(readers.parse_rate)),
            "limit_burst": optional(whole(1, 1_000_000)),
            "limit_per": choice(entities.LimitPer),
            "trace": flag,
            "early_data": flag,
            "client_ca": parsed(collector.parse_certificates),
            "client_crl": parsed(clientnames.parse_crl),
            "client_names": each(clientnames.parse_client_name, order=str, empty=True),
            "weights": each(readers.parse_share, order=str, empty=True),
            "sticky": flag,
            "redirect": optional(parsed(actions.parse_redirect)),
            "redirect_status": whole(300, 399),
            "rewrite_prefix": optional(parsed(actions.parse_new_path)),
            "rewrite_host": optional(parsed(actions.parse_new_host)),
            "request_headers": readers.in_order(actions.parse_header_action),
            "response_headers": readers.in_order(actions.parse_header_action),
            "mirror": optional(parsed(readers.parse_mirror)),
            "description": line,
        },
        rules.check_mapping,
        {"destinations": lambda values: ()},
    ),
    Interface: _Form(
        "interface",
        {
            "name": parsed(names.parse_interface_name),
            "role": choice(entities.Role),
            "mode": choice(entities.Mode),
            "masquerade": flag,
            "nat_addresses": each(readers.parse_nat_address, order=readers.by_address, empty=True),
        },
        rules.check_interface,
    ),
    Block: _Form(
        "block",
        {"name": parsed(readers.parse_blocked), "reason": line, "origin": line, "expires": _EXPIRES},
    ),
    BlockList: _Form(
        "block list",
        {
            "name": parsed(names.parse_name),
            "sha256": readers.sha256,
            "entries": whole(0, appliance.MAX_ENTRIES),
            "origin": line,
            "reason": line,
            "expires": _EXPIRES,
        },
    ),
    Limit: _Form(
        "limit",
        {
            "name": parsed(names.parse_name),
            "per": choice(appliance.Per),
            "services": each(names.parse_qualified, order=str, empty=True),
            "packets_per_second": _RATE,
            "bytes_per_second": _RATE,
            "flows_per_second": _RATE,
            "burst": optional(whole(1, appliance.MAX_BURST * appliance.MAX_RATE)),
            "exempt": each(address.parse_prefix, order=address.address_order, empty=True),
        },
        rules.check_limit,
    ),
    ApplianceListener: _Form(
        "listener",
        {
            "name": readers.text,
            "kind": choice(appliance.ListenerKind),
            "bind": parsed(parse_endpoint),
            "tls": optional(parsed(names.parse_qualified_certificate)),
            "proxy_from": each(address.parse_prefix, order=address.address_order, empty=True),
        },
        rules.check_listener,
        {"name": lambda values: rules.listener_name(values["kind"], values["bind"])},
    ),
    Settings: _Form(
        "settings",
        {
            "name": readers.only(appliance.SETTINGS_NAME),
            "audit": flag,
            "refusal": choice(appliance.Refusal),
            "refusals_per_second": whole(1, 1_000_000),
            "flow_table": whole(1024, 16_777_216),
            "timeout_tcp_established": _SECONDS,
            "timeout_tcp_closing": _SECONDS,
            "timeout_tcp_opening": _SECONDS,
            "timeout_udp": _SECONDS,
            "timeout_udp_unanswered": _SECONDS,
            "timeout_icmp": _SECONDS,
            "tunnel_idle": _SECONDS,
            "tunnel_lifetime": whole(0, appliance.MAX_TIMEOUT),
            "handoff_bytes": whole(0, appliance.MAX_HANDOFF),
            "handoff_seconds": whole(0, appliance.MAX_TIMEOUT),
            "resolvers": readers.in_order(readers.parse_resolver),
            "private_answers": each(readers.parse_host_rule, order=str, empty=True),
            "certificate_warning": whole(0, appliance.MAX_WARNING),
            "enterprise_number": whole(1, appliance.MAX_ENTERPRISE),
        },
    ),
}

_DEFAULTS: dict[type[Any], tuple[tuple[str, object], ...]] = {
    entity: tuple((own.name, own.default) for own in fields(entity)) for entity in _FORMS
}

_REQUIRED: dict[type[Any], tuple[str, ...]] = {
    entity: tuple(
        name for name, default in defaults if default is MISSING and name not in _FORMS[entity].derived
    )
    for entity, defaults in _DEFAULTS.items()
}
"""The fields that a document must have."""
