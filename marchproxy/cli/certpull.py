"""Certificates that are fetched: when it is time, and what becomes of what came."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from marchproxy.client.certsources import Origin, SourceFailed, source_of
from marchproxy.model.certificate import Certificate
from marchproxy.model.errors import InvalidValue, MarchproxyError, NotFound

if TYPE_CHECKING:
    from marchproxy.store.certificatesources import KeptSource
    from marchproxy.store.store import Store
    from marchproxy.store.x509 import Material

SHARE = 3
"""What is issued anew each time is fetched in the last third of its life."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of one source."""

    cluster: str
    name: str
    certificate: Certificate | None = None
    """What is there now, if it is another than before."""
    failure: str = ""
    """Why nothing came; empty: something did, or there was no need."""


def establish(store: "Store", cluster: str, name: str, origin: Origin) -> Certificate:
    """Fetch for the first time, and remember where from. Raises as `fetched`, `NotFound` and `Conflict`, and
    then nothing has changed.
    """
    material = fetched(origin)
    try:
        store.certificates.find(cluster, name)
    except NotFound:
        made = store.certificates.add(cluster, name, material)
    else:
        made = store.certificates.replace(cluster, name, material)
    store.certificate_sources.keep(cluster, name, document_of(origin), origin.secret)
    return made


def pull(store: "Store", cluster: str, name: str = "", *, now: bool = False) -> Iterator[Pulled]:
    """Ask the sources of a cluster (empty: of all), or of one certificate, where it is time, or `now`."""
    for kept in store.certificate_sources.every():
        if cluster in ("", kept.cluster) and name in ("", kept.name):
            try:
                yield Pulled(kept.cluster, kept.name, _pull(store, kept, now=now))
            except MarchproxyError as error:
                yield Pulled(kept.cluster, kept.name, failure=error.message)


def fetched(origin: Origin) -> "Material":
    """What a source has, once it is known that TLS can be spoken with it. Raises `SourceFailed`."""
    from marchproxy.dataplane.credentials.contexts import Unusable, server_context
    from marchproxy.store.certificates import Identity
    from marchproxy.store.x509 import read_material

    chain, key = source_of(origin).fetch()
    try:
        material = read_material(chain, key, datetime.now(UTC))
        server_context(Identity("fetched", material.chain, material.key))
    except (InvalidValue, Unusable) as error:
        raise SourceFailed(f"{origin}: what it has cannot be used: {error.message}") from None
    return material


def origin_of(kept: "KeptSource") -> Origin:
    """Of what is kept, without what opens it."""
    document = kept.document
    return Origin(document["kind"], document["url"], document["options"], document["ca"])


def document_of(origin: Origin) -> dict[str, object]:
    """What is kept in the clear."""
    return {"kind": origin.kind, "url": origin.url, "options": dict(origin.options), "ca": origin.ca}


def _pull(store: "Store", kept: "KeptSource", *, now: bool) -> Certificate | None:
    held = store.certificates.find(kept.cluster, kept.name)
    origin = origin_of(kept)
    if source_of(origin).issues and not (now or _is_late(held)):
        return None
    material = fetched(replace(origin, secret=store.certificate_sources.secret(kept)))
    if material.facts.fingerprint == held.facts.fingerprint:
        return None
    return store.certificates.replace(kept.cluster, kept.name, material)


def _is_late(held: Certificate) -> bool:
    facts = held.facts
    return datetime.now(UTC) >= facts.expires - (facts.expires - facts.begins) / SHARE
