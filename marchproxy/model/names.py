"""Names of things, and references to services."""

import re

from marchproxy.model.errors import InvalidValue

ALL = "all"
"""As source or destination: every service of the cluster and everyone else."""
EXTERNAL = "external"
"""As source or destination: everyone who is in no service of the cluster."""
COLLECTION_PREFIX = "collection:"
DEFAULT_CLUSTER = "default"
LOOPBACK = "lo"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_INTERFACE = re.compile(r"[!-.0-9;-~]{1,15}")
"""Printable ASCII without '/' and ':'. The kernel counts bytes (IFNAMSIZ 16 with the final zero) and
takes other bytes too, but what a terminal cannot show unchanged has no place in a log line."""
_RESERVED = frozenset({ALL, EXTERNAL})


def parse_name(text: str, *, field: str = "name") -> str:
    """Read the name of a service, mapping, cluster, collection or tag.

    1 to 63 letters, digits, `.`, `_` or `-`, the first a letter or digit.
    """
    text = text.strip()
    if not _NAME.fullmatch(text):
        expected = "1 to 63 letters, digits, '.', '_' or '-', starting with a letter or digit"
        raise InvalidValue(field, text, expected)
    return text


def parse_service_name(text: str, *, field: str = "name") -> str:
    """A name that does not mean something else in `--from` and `--to`."""
    name = parse_name(text, field=field)
    if name.lower() in _RESERVED:
        taken = " and ".join(sorted(_RESERVED))
        raise InvalidValue(field, text, f"a name other than {taken}, which mean everyone")
    return name


def parse_reference(text: str, *, field: str) -> str:
    """Read a reference to services: a name, `collection:NAME`, `external` or `all`."""
    text = text.strip()
    if text.startswith(COLLECTION_PREFIX):
        return COLLECTION_PREFIX + parse_name(text.removeprefix(COLLECTION_PREFIX), field=field)
    return text.lower() if text.lower() in _RESERVED else parse_name(text, field=field)


def parse_references(text: str, *, field: str) -> tuple[str, ...]:
    """Read a comma-separated list of references; duplicates fold, order is alphabetical."""
    return tuple(sorted({parse_reference(part, field=field) for part in text.split(",")}))


def parse_interface_name(text: str, *, field: str = "interface") -> str:
    """Read a network device name as the kernel takes it: 1 to 15 ASCII characters, no space, '/' or ':'."""
    if text == LOOPBACK:
        raise InvalidValue(field, text, "a device that faces a network: on loopback the host talks to itself")
    if not _INTERFACE.fullmatch(text) or text in (".", ".."):
        raise InvalidValue(field, text, "a network device name of 1 to 15 characters, such as eth0")
    return text


def qualify(cluster: str, name: str) -> str:
    """A name as others see it: `cluster/name`, or just `name` in the default cluster."""
    return name if cluster == DEFAULT_CLUSTER else f"{cluster}/{name}"


def parse_qualified(text: str, *, field: str) -> str:
    """Read a service's name as others see it, `cluster/name` or `name`; in canonical text."""
    cluster, name = split_qualified(text, field=field)
    return qualify(cluster, parse_service_name(name, field=field))


def parse_qualified_certificate(text: str, *, field: str) -> str:
    """The same of a certificate's name."""
    return qualify(*split_qualified(text, field=field))


def split_qualified(text: str, *, field: str = "name") -> tuple[str, str]:
    """Cluster and name of what `qualify` writes."""
    cluster, slash, name = text.strip().rpartition("/")
    return parse_name(cluster, field=field) if slash else DEFAULT_CLUSTER, parse_name(name, field=field)


def cluster_of(qualified: str) -> str:
    """The cluster of a qualified name."""
    cluster, slash, _ = qualified.partition("/")
    return cluster if slash else DEFAULT_CLUSTER
