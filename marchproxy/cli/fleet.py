"""The fleet's import files, as entities of ours.

    {"services": [{name, ip_fqdn, port, protocol, collection, auth_type, tls_enabled,
                   health_check_enabled, health_check_path, health_check_interval, description}],
     "mappings": [{name, description, source_services, dest_services, listen_port, protocol, path_prefix}],
     "metadata": {…}}

An import adds and updates; it removes nothing, and leaves alone what the file has no word for (weights, tags,
priorities). Unknown keys are refused: one that was meant to restrict something must not be lost silently.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from marchproxy.model.documents import Document, Entity, read_mapping, read_service, to_document
from marchproxy.model.endpoint import Endpoint
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port

_TOP = frozenset({"services", "mappings", "metadata"})
_AUTH = {"none": "none", "token": "token", "base64": "token", "jwt": "jwt"}
"""The fleet calls a random token in base64 after its encoding."""
_SERVICE_KEYS = frozenset(
    {
        "name",
        "description",
        "ip_fqdn",
        "port",
        "protocol",
        "collection",
        "auth_type",
        "tls_enabled",
        "health_check_enabled",
        "health_check_path",
        "health_check_interval",
    }
)
_MAPPING_KEYS = frozenset(
    {"name", "description", "source_services", "dest_services", "listen_port", "protocol", "path_prefix"}
)
_LISTS = {"source_services": "sources", "dest_services": "destinations", "protocol": "protocols"}
_MARKS = {
    "services": {"ip_fqdn", "auth_type", "tls_enabled", "health_check_enabled"},
    "mappings": {"source_services", "dest_services", "listen_port"},
}
"""Keys that only a fleet file has."""


def is_fleet(document: Document) -> bool:
    """Whether a document is a fleet file and none of ours."""
    if "metadata" in document:
        return True
    return any(
        isinstance(entry, dict) and not marks.isdisjoint(entry)
        for part, marks in _MARKS.items()
        if isinstance(entries := document.get(part), list)
        for entry in entries
    )


def import_services(document: Document, held: Mapping[str, Entity]) -> list[Entity]:
    """The services of the file, each merged into the one of that name in `held`."""
    return _import(document, "services", _SERVICE_KEYS, held, _service, read_service)


def import_mappings(document: Document, held: Mapping[str, Entity]) -> list[Entity]:
    """The mappings of the file, likewise."""
    return _import(document, "mappings", _MAPPING_KEYS, held, _mapping, read_mapping)


def _import(
    document: Document,
    part: str,
    keys: frozenset[str],
    held: Mapping[str, Entity],
    convert: Callable[[Document], Document],
    read: Callable[[object], Entity],
) -> list[Entity]:
    unknown = set(document) - _TOP
    if unknown:
        raise InvalidValue("field", min(unknown), "services, mappings or metadata")
    imported: dict[str, Entity] = {}
    for number, entry in enumerate(_entries(document, part), start=1):
        try:
            fields = convert(_checked(entry, keys))
            name = fields.get("name")
            before = to_document(held[name]) if isinstance(name, str) and name in held else {}
            entity = read(before | fields)
            if entity.name in imported:
                raise InvalidValue("name", entity.name, "a name that comes once")
            imported[entity.name] = entity
        except InvalidValue as error:
            raise error.at(f"{part} entry {number}") from None
    return list(imported.values())


def _entries(document: Document, part: str) -> list[Any]:
    entries = [] if document.get(part) is None else document[part]
    if not isinstance(entries, list):
        raise InvalidValue(part, entries, "a list")
    return entries


def _checked(entry: Any, keys: frozenset[str]) -> Document:
    if not isinstance(entry, dict):
        raise InvalidValue("entry", entry, "an object with a name")
    unknown = set(entry) - keys
    if unknown:
        raise InvalidValue("field", min(unknown), "one of " + ", ".join(sorted(keys)))
    return {key: value for key, value in entry.items() if value not in (None, "")}


def _service(entry: Document) -> Document:
    fields = _kept(entry, ("name", "port", "protocol", "collection", "description"))
    if "ip_fqdn" in entry:
        fields["addresses"] = _names(entry["ip_fqdn"], "ip_fqdn")
    if "auth_type" in entry:
        fields["auth"] = _auth(entry["auth_type"])
    if "tls_enabled" in entry:
        fields["tls"] = entry["tls_enabled"]
    if "health_check_enabled" in entry:
        fields["health"] = _health(entry)
    if "health_check_interval" in entry:
        fields["health_interval"] = entry["health_check_interval"]
    return fields


def _mapping(entry: Document) -> Document:
    fields = _kept(entry, ("name", "description"))
    for key, field in _LISTS.items():
        if key in entry:
            fields[field] = _names(entry[key], key)
    if "listen_port" in entry:
        fields["listen"] = str(Endpoint(None, parse_port(entry["listen_port"], field="listen_port")))
    if entry.get("path_prefix", "/") != "/":
        # A prefix of "/" is every path: the same as none, which needs nobody to read paths.
        fields["path_prefix"] = entry["path_prefix"]
    return fields


def _kept(entry: Document, keys: Iterable[str]) -> Document:
    return {key: entry[key] for key in keys if key in entry}


def _names(value: Any, field: str) -> list[str]:
    """A list, or text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidValue(field, value, "a list of texts, or text with commas")
    return value


def _auth(value: Any) -> str:
    method = _AUTH.get(value.lower()) if isinstance(value, str) else None
    if method is None:
        raise InvalidValue("auth_type", value, "one of " + ", ".join(_AUTH))
    return method


def _health(entry: Document) -> str:
    """A check of ours: HTTP where a path is given, else a connection, or a ping where there are none."""
    enabled, path = entry["health_check_enabled"], entry.get("health_check_path")
    if not isinstance(enabled, bool):
        raise InvalidValue("health_check_enabled", enabled, "true or false")
    if not enabled:
        return "none"
    protocol = entry.get("protocol")
    if path is None:
        return "icmp" if protocol in ("udp", "icmp") else "tcp"
    secure = protocol == "https" or entry.get("tls_enabled") is True
    return f"{'https' if secure else 'http'}:{path}"
