"""Which fields of an entity a form has, and how text becomes their value. The model decides what is right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from marchproxy.client.units import MAX_DIGITS
from marchproxy.client.words import printable
from marchproxy.model.change import ENTITIES, Kind
from marchproxy.model.documents import Document, Entity, read_entity, read_field, to_document
from marchproxy.model.entities import Action, Auth, Balance, SendProxy
from marchproxy.model.errors import InvalidValue


class Shape(Enum):
    """How a field is typed."""

    TEXT = auto()
    NUMBER = auto()
    LIST = auto()
    """Separated by commas or spaces."""
    PHRASES = auto()
    """Separated by ` | `, for each of them may have commas and spaces."""
    FLAG = auto()
    CHOICE = auto()


_BAR = " | "
_WORDS = {False: "no", True: "yes"}


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a form."""

    name: str
    """Of the entity's field."""
    label: str
    hint: str
    """An example, shown while it is empty."""
    shape: Shape = Shape.TEXT
    choices: Sequence[str] = ()

    @property
    def options(self) -> Sequence[str]:
        """What can be chosen; empty: it is typed."""
        return tuple(_WORDS.values()) if self.shape is Shape.FLAG else tuple(map(str, self.choices))

    def text(self, document: Document) -> str:
        """What stands in the line at first."""
        value = document.get(self.name)
        if self.shape is Shape.FLAG:
            return _WORDS[bool(value)]
        if value is None:
            return self.choices[0] if self.choices else ""
        between = _BAR if self.shape is Shape.PHRASES else ", "
        return between.join(map(str, value)) if isinstance(value, list) else str(value)

    def value(self, text: str) -> Any:
        """The document's value; None: the field is at its default."""
        said = text.strip()
        if self.shape is Shape.FLAG:
            return said == _WORDS[True] or None
        if self.shape is Shape.LIST:
            return said.replace(",", " ").split() or None
        if self.shape is Shape.PHRASES:
            return [each.strip() for each in said.split(_BAR) if each.strip()] or None
        if not said:
            return None
        number = self.shape is Shape.NUMBER and said.isascii() and said.isdigit() and len(said) <= MAX_DIGITS
        return int(said) if number else said


FIELDS: Final[Mapping[Kind, Sequence[Field]]] = {
    Kind.SERVICE: (
        Field("name", "Name", "web"),
        Field("addresses", "Addresses", "10.2.0.10, 10.3.0.0/16, db.example.com", Shape.LIST),
        Field("port", "Port", "8080; empty: the one that was asked for", Shape.NUMBER),
        Field("protocol", "Protocol", "tcp or udp; empty: any"),
        Field("collection", "Collection", "front"),
        Field("tags", "Tags", "site-a, public", Shape.LIST),
        Field("auth", "Credential", "", Shape.CHOICE, tuple(Auth)),
        Field("weight", "Weight", "1 to 256; 1 unless given", Shape.NUMBER),
        Field("tls", "TLS", "", Shape.FLAG),
        Field("tls_cert", "Shown certificate", "name of one, with TLS; empty: backends are shown none"),
        Field("health", "Health check", "tcp, icmp, http:/PATH, https:/PATH, grpc or grpcs"),
        Field("drain", "Drained", "addresses that get no new flows", Shape.LIST),
        Field("description", "Description", "what it is"),
    ),
    Kind.MAPPING: (
        Field("name", "Name", "clients-web"),
        Field("sources", "From", "services, collection:NAME, external or all", Shape.LIST),
        Field("destinations", "To", "services, collection:NAME, external or all", Shape.LIST),
        Field("protocols", "Protocols", "tcp, udp, icmp, http, https, grpc, quic", Shape.LIST),
        Field("ports", "Ports", "443, 8000-8100; empty: the service's own, or any", Shape.LIST),
        Field("listen", "Listen", "10.1.0.1:80; empty: routed traffic"),
        Field("tls", "TLS certificate", "name of a certificate, with which TLS is spoken there"),
        Field("weights", "Shares", "shop=90, shop-canary=10; empty: by the weights of services", Shape.LIST),
        Field("host", "Host", "HTTP: shop.example.com or *.example.com; empty: any"),
        Field("path_prefix", "Path prefix", "/api; empty: any"),
        Field("path", "Path", "/metrics: this very path"),
        Field("methods", "Methods", "GET, POST; empty: any", Shape.LIST),
        Field("headers", "Headers", "X-Env: beta | X-Debug | !X-Old; empty: any", Shape.PHRASES),
        Field("query", "Query", "v=2 | debug | !old; empty: any", Shape.PHRASES),
        Field("redirect", "Redirect", "https://{host}{path}, without destinations"),
        Field("redirect_status", "Redirect status", "301, 302, 303, 307; 308 unless given", Shape.NUMBER),
        Field("rewrite_prefix", "Rewrite prefix", "/v2, in the place of the path prefix"),
        Field("rewrite_host", "Rewrite host", "app.internal: what backends get as Host"),
        Field("request_headers", "To backends", "set X-Env prod | remove Cookie", Shape.PHRASES),
        Field("response_headers", "To clients", "add Vary Accept | remove Server", Shape.PHRASES),
        Field("mirror", "Mirror", "canary=10: a service that gets copies of 10 of 100 requests"),
        Field("sticky", "Sticky", "", Shape.FLAG),
        Field("early_data", "0-RTT of HTTP/3", "", Shape.FLAG),
        Field(
            "proxy_from",
            "PROXY from",
            "10.1.0.5: who says by the PROXY protocol who its client is",
            Shape.LIST,
        ),
        Field("send_proxy", "PROXY to backends", "", Shape.CHOICE, tuple(SendProxy)),
        Field("action", "Action", "", Shape.CHOICE, tuple(Action)),
        Field("priority", "Priority", "0 to 65535, lower wins; 100 unless given", Shape.NUMBER),
        Field("auth_required", "Wants a credential", "", Shape.FLAG),
        Field("sni", "TLS must name it", "", Shape.FLAG),
        Field("audit", "Audit", "", Shape.FLAG),
        Field("expires", "Expires", "2030-01-31T18:00:00Z"),
        Field("balance", "Balance", "", Shape.CHOICE, tuple(Balance)),
        Field("description", "Description", "what it is for"),
    ),
    Kind.BLOCK: (
        Field("name", "Block", "an address, a prefix or a host name"),
        Field("reason", "Reason", "why"),
        Field("expires", "Expires", "2030-01-31T18:00:00Z"),
    ),
    Kind.LIMIT: (
        Field("name", "Name", "per-client"),
        Field("per", "Counted for", "", Shape.CHOICE, ("source", "service", "total")),
        Field("services", "Services", "default/clients; empty: every address", Shape.LIST),
        Field("packets_per_second", "Packets a second", "10000", Shape.NUMBER),
        Field("bytes_per_second", "Bytes a second", "1000000", Shape.NUMBER),
        Field("flows_per_second", "New flows a second", "100", Shape.NUMBER),
        Field("burst", "At once", "how many may come together", Shape.NUMBER),
        Field("exempt", "Not for", "10.9.0.0/16", Shape.LIST),
    ),
}
"""What can be written in the terminal; the command line has everything."""


def complaint(kind: Kind, field: Field, text: str) -> str:
    """What is wrong with what stands in one line; empty: nothing."""
    value = field.value(text)
    if value is None:
        return ""
    try:
        read_field(ENTITIES[kind], field.name, value)
    except InvalidValue as error:
        return printable(error.hint)
    return ""


def read_form(kind: Kind, before: Document, texts: Mapping[str, str]) -> Entity:
    """The entity that a form says; what it has no line for stays as in `before`. Raises `InvalidValue`."""
    document = dict(before)
    for field in FIELDS[kind]:
        if texts[field.name] == field.text(before):
            # What nobody has touched stays, also where its text could be read in another way.
            continue
        value = field.value(texts[field.name])
        document.pop(field.name, None)
        if value is not None:
            document[field.name] = value
    return read_entity(ENTITIES[kind], document)


def form_document(entity: Entity | None) -> Document:
    """What a form begins with."""
    return {} if entity is None else to_document(entity)
