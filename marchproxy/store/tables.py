"""The tables as pydal knows them, with a validator on every column.

pydal's own migrations are off: they depend on pickled files beside the database (see `migrations.py`).
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydal import DAL, Field
from pydal._globals import THREAD_LOCAL
from pydal.validators import IS_IN_SET, IS_INT_IN_RANGE, IS_MATCH

from marchproxy.model.certificate import Origin
from marchproxy.model.change import OF_APPLIANCE, OF_CLUSTER, Kind
from marchproxy.model.errors import InvalidValue
from marchproxy.model.names import parse_name
from marchproxy.store.location import Location
from marchproxy.store.rows import COLUMNS, LONGEST_NAME, NAME_LENGTH

AUTHOR_LENGTH = 64
MESSAGE_LENGTH = 500
ADDRESS_LENGTH = 2000
CONTACT_LENGTH = 320

type Judgement = tuple[Any, str | None]
"""What pydal's validators return: the value, and what is wrong with it."""


def bind(location: Location) -> DAL:
    """pydal over the tables of a store. Connects to a server at once, to a file when given a connection."""
    try:
        dal = DAL(
            location.uri or f"sqlite://{location.path}",
            migrate=False,
            migrate_enabled=False,
            # Its retries sleep a second each and hide the first error.
            attempts=1,
            decode_credentials=True,
            db_uid=location.label,
        )
    finally:
        # Made for web applications, pydal keeps every DAL of a thread alive until the request ends, and the
        # last hundred statements with it. Here nothing ends, and statements hold what operators wrote.
        THREAD_LOCAL._pydal_db_instances_.pop(location.label, None)
    dal._adapter.execution_handlers = []
    dal._adapter.check_active_connection = False
    _define(dal)
    return dal


def _define(dal: DAL) -> None:
    dal.define_table(
        "migration",
        Field("number", "integer", requires=_POSITIVE),
        Field("name", length=NAME_LENGTH, requires=_name),
        Field("time", "datetime", requires=_instant),
    )
    dal.define_table(
        "revision",
        Field("number", "integer", requires=_POSITIVE),
        Field("time", "datetime", requires=_instant),
        Field("author", length=AUTHOR_LENGTH, requires=_line(AUTHOR_LENGTH)),
        Field("message", length=MESSAGE_LENGTH, requires=_line(MESSAGE_LENGTH)),
        Field("sha256", length=64, requires=_SHA256),
    )
    dal.define_table(
        "change",
        Field("revision", "reference revision", ondelete="RESTRICT", requires=_POSITIVE),
        Field("kind", length=NAME_LENGTH, requires=IS_IN_SET(list(Kind))),
        Field("cluster", length=NAME_LENGTH, requires=_optional(_name)),
        Field("name", length=LONGEST_NAME, requires=_line(LONGEST_NAME)),
        Field("before", "text", requires=_optional(_document)),
        Field("after", "text", requires=_optional(_document)),
    )
    dal.define_table(Kind.CLUSTER.value, *_fields(Kind.CLUSTER))
    dal.define_table(
        "cluster_key",
        Field("cluster", "reference cluster", ondelete="CASCADE", requires=_POSITIVE),
        Field("hash", length=64, requires=_SHA256),
        Field("created", "datetime", requires=_instant),
        Field("expires", "datetime", requires=_optional(_instant)),
    )
    dal.define_table(
        "trial",
        Field("revision", "integer", requires=_POSITIVE),
        Field("previous", "integer", requires=_POSITIVE),
        Field("seconds", "integer", requires=_POSITIVE),
        Field("deadline", "datetime", requires=_instant),
        Field("boot", length=NAME_LENGTH, requires=_line(NAME_LENGTH)),
        Field("uptime", "integer", requires=_POSITIVE),
    )
    dal.define_table(
        "block_contents",
        Field("sha256", length=64, requires=_SHA256),
        Field("size", "integer", requires=_POSITIVE),
    )
    dal.define_table(
        "block_piece",
        Field("contents", "reference block_contents", ondelete="CASCADE", requires=_POSITIVE),
        Field("number", "integer", requires=_POSITIVE),
        Field("data", "text", requires=_BASE64),
    )
    for kind in OF_CLUSTER:
        # That the cluster exists is the foreign key's to say: pydal's IS_IN_DB would ask once for every row.
        cluster = Field("cluster", "reference cluster", ondelete="RESTRICT", requires=_POSITIVE)
        dal.define_table(kind.value, cluster, *_fields(kind))
    for kind in OF_APPLIANCE:
        dal.define_table(kind.value, *_fields(kind))
    dal.define_table(
        "token",
        Field("service", "reference service", ondelete="CASCADE", requires=_POSITIVE),
        Field("hash", length=64, requires=_SHA256),
        Field("jti", length=LONGEST_NAME, requires=_optional(_line(LONGEST_NAME))),
        Field("created", "datetime", requires=_instant),
        *(
            Field(name, "datetime", requires=_optional(_instant))
            for name in ("expires", "replaced", "revoked", "last_used")
        ),
    )
    dal.define_table(
        "jwt_secret",
        Field("service", "reference service", ondelete="CASCADE", requires=_POSITIVE),
        Field("sealed", "text", requires=_BASE64),
        Field("created", "datetime", requires=_instant),
    )
    dal.define_table(
        "log_token",
        Field("cluster", "reference cluster", ondelete="CASCADE", requires=_POSITIVE),
        Field("sealed", "text", requires=_BASE64),
        Field("created", "datetime", requires=_instant),
    )

    dal.define_table(
        "certificate",
        Field("cluster", "reference cluster", ondelete="CASCADE", requires=_POSITIVE),
        Field("name", length=NAME_LENGTH, requires=_name),
        Field("origin", length=NAME_LENGTH, requires=IS_IN_SET(list(Origin))),
        Field("chain", "text", requires=_PEM),
        Field("sealed", "text", requires=_BASE64),
        Field("hosts", "text", requires=_names),
        *(Field(name, "text", requires=_line(MESSAGE_LENGTH)) for name in ("subject", "issuer", "kind")),
        Field("fingerprint", length=64, requires=_SHA256),
        *(Field(name, "datetime", requires=_instant) for name in ("created", "begins", "expires")),
    )
    dal.define_table(
        "certificate_source",
        Field("certificate", "reference certificate", ondelete="CASCADE", requires=_POSITIVE),
        Field("document", "text", requires=_document),
        Field("sealed", "text", requires=_BASE64),
        Field("created", "datetime", requires=_instant),
    )
    dal.define_table(
        "acme_account",
        Field("cluster", "reference cluster", ondelete="CASCADE", requires=_POSITIVE),
        Field("directory", "text", requires=_line(ADDRESS_LENGTH)),
        Field("contact", length=CONTACT_LENGTH, requires=_contact),
        Field("sealed", "text", requires=_BASE64),
        Field("orders", "text", requires=_names),
        Field("created", "datetime", requires=_instant),
    )


def _fields(kind: Kind) -> list[Field]:
    return [Field(c.name, c.type, length=LONGEST_NAME, requires=c) for c in COLUMNS[kind]]


def _name(value: Any, record_id: object = None) -> Judgement:
    try:
        return parse_name(value), None
    except InvalidValue as error:
        return value, error.hint


def _instant(value: Any, record_id: object = None) -> Judgement:
    if not isinstance(value, datetime) or value.tzinfo is not None or value.microsecond:
        return value, "expected a whole second in UTC, without its zone"
    return value, None


def _document(value: Any, record_id: object = None) -> Judgement:
    try:
        document = json.loads(value)
    except ValueError:
        document = None
    return value, None if isinstance(document, dict) else "expected a JSON object"


def _contact(value: Any, record_id: object = None) -> Judgement:
    """Empty where there is none."""
    return (value, None) if value == "" else _line(CONTACT_LENGTH)(value)


def _names(value: Any, record_id: object = None) -> Judgement:
    try:
        names = json.loads(value)
    except ValueError:
        names = None
    good = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return value, None if good else "expected a JSON list of names"


def _line(limit: int) -> Callable[..., Judgement]:
    def judge(value: Any, record_id: object = None) -> Judgement:
        if isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= limit:
            return value, None
        return value, f"expected 1 to {limit} printable characters on one line"

    return judge


def _optional(validator: Callable[..., Judgement]) -> Callable[..., Judgement]:
    return lambda value, record_id=None: (None, None) if value is None else validator(value, record_id)


_POSITIVE = IS_INT_IN_RANGE(1, None, error_message="expected a number from 1")
_BASE64 = IS_MATCH("^[A-Za-z0-9+/]+=*$", error_message="expected base64")
_PEM = IS_MATCH("^-----BEGIN CERTIFICATE-----\n", error_message="expected certificates in PEM form")
_SHA256 = IS_MATCH("^[0-9a-f]{64}$", error_message="expected a SHA-256 in hexadecimal")
