"""Certificates that are fetched: when it is time, and what becomes of what came."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from marchproxy.client.asking import SourceFailed
from marchproxy.client.certorigin import HTTP, Account, Origin, issues
from marchproxy.client.certsources import source_of
from marchproxy.client.challengeport import expect_free
from marchproxy.model.certificate import Certificate
from marchproxy.model.endpoint import parse_endpoint
from marchproxy.model.errors import InvalidValue, MarchproxyError, NotFound

if TYPE_CHECKING:
    from marchproxy.store.certificatesources import KeptSource
    from marchproxy.store.store import Store
    from marchproxy.store.x509 import Material

SHARE = 3
"""What is issued anew each time is fetched in the last third of its life."""
FIRST_REST, LONGEST_REST = timedelta(minutes=15), timedelta(days=1)
"""How long a CA is left alone after an order that failed, which doubles with each, and at most."""
_REST_SHARE = 10
"""At most this part of a certificate's life, too: what lives for hours cannot wait a day."""
_CUT_OFF = "the order did not come to an end"


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of one source."""

    cluster: str
    name: str
    certificate: Certificate | None = None
    """What is there now, if it is another than before."""
    failure: str = ""
    """Why nothing came; empty: something did, or there was no need."""


def establish(store: "Store", cluster: str, name: str, origin: Origin, meeting: Path) -> Certificate:
    """Fetch for the first time, and remember where from; `meeting` is an `Account`'s. Raises as `fetched`,
    `NotFound` and `Conflict`, and then nothing has changed.
    """
    material = fetched(origin, _Account(store, cluster, origin, meeting))
    try:
        store.certificates.find(cluster, name)
    except NotFound:
        made = store.certificates.add(cluster, name, material)
    else:
        made = store.certificates.replace(cluster, name, material)
    store.certificate_sources.keep(cluster, name, document_of(origin), origin.secret)
    return made


def pull(
    store: "Store", meeting: Path, cluster: str, name: str = "", *, now: bool = False
) -> Iterator[Pulled]:
    """Ask the sources of a cluster (empty: of all), or of one certificate, where it is time, or `now`."""
    for kept in store.certificate_sources.every():
        if cluster in ("", kept.cluster) and name in ("", kept.name):
            try:
                yield Pulled(kept.cluster, kept.name, _pull(store, meeting, kept, now=now))
            except MarchproxyError as error:
                yield Pulled(kept.cluster, kept.name, failure=error.message)


def fetched(origin: Origin, account: Account) -> "Material":
    """What a source has, once it is known that TLS can be spoken with it. Raises `SourceFailed`, and for ACME
    what `Account` does.
    """
    from marchproxy.dataplane.credentials.contexts import Unusable, server_context
    from marchproxy.store.certificates import Identity
    from marchproxy.store.x509 import read_material

    chain, key = source_of(origin, account).fetch()
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


class _Account:
    """Of a cluster, at the CA of an origin; `then` is called when an order begins."""

    def __init__(
        self,
        store: "Store",
        cluster: str,
        origin: Origin,
        meeting: Path,
        then: Callable[[], None] | None = None,
    ) -> None:
        self.meeting = meeting
        self._accounts = store.acme_accounts
        self._snapshot = store.snapshot
        self._options = origin.options
        self._named = (cluster, origin.url, origin.options.get("contact", ""))
        self._then = then

    def key(self) -> bytes:
        """See `Account`."""
        return self._accounts.key(*self._named)

    def expect_free(self) -> None:
        """See `Account`."""
        if listen := self._options.get("listen"):
            expect_free(self._snapshot(), parse_endpoint(listen), self._options.get("challenge", HTTP))

    def begin(self) -> None:
        """See `Account`."""
        self._accounts.begin(*self._named)
        if self._then is not None:
            self._then()


class _Tries:
    """How often orders of a kept source have failed in a row, noted before each: killed is failed, too."""

    def __init__(self, store: "Store", kept: "KeptSource", held: Certificate) -> None:
        self._sources = store.certificate_sources
        self._kept = kept
        self._life = held.facts.expires - held.facts.begins
        before = kept.document.get("tries", {})
        self._count = int(before.get("count", 0))
        self._failure = str(before.get("failure", ""))
        self._next = datetime.fromisoformat(before["next"]) if self._count else None
        self._begun = False

    def expect_rested(self) -> None:
        """Raise `SourceFailed` where it is not time yet for another one."""
        now = datetime.now(UTC)
        if self._next is not None and now < self._next <= now + LONGEST_REST:
            raise SourceFailed(f"{self._failure}; the next order is begun at {self._next:%Y-%m-%d %H:%M} UTC")

    def begin(self) -> None:
        """One begins now."""
        self._begun = True
        self._count += 1
        self.failed(_CUT_OFF, 0.0)

    def failed(self, failure: str, again: float) -> None:
        """It has; `again`: seconds that the CA wants at least."""
        if not self._begun:
            return
        longest = max(FIRST_REST, min(LONGEST_REST, self._life / _REST_SHARE))
        rest = min(FIRST_REST * 2 ** min(self._count - 1, 10), longest)
        rest = min(max(rest, timedelta(seconds=again)), LONGEST_REST)
        then = datetime.now(UTC).replace(microsecond=0) + rest
        self._note({"count": self._count, "next": then.isoformat(), "failure": failure})

    def succeeded(self) -> None:
        """It has."""
        if self._begun:
            self._note(None)

    def _note(self, tries: dict[str, object] | None) -> None:
        document = {name: value for name, value in self._kept.document.items() if name != "tries"}
        self._sources.note(self._kept, document | ({"tries": tries} if tries else {}))


def _pull(store: "Store", meeting: Path, kept: "KeptSource", *, now: bool) -> Certificate | None:
    held = store.certificates.find(kept.cluster, kept.name)
    origin = origin_of(kept)
    if issues(origin) and not (now or _is_late(held)):
        return None
    tries = _Tries(store, kept, held)
    if not now:
        tries.expect_rested()
    opened = replace(origin, secret=store.certificate_sources.secret(kept))
    try:
        material = fetched(opened, _Account(store, kept.cluster, origin, meeting, tries.begin))
        made = (
            store.certificates.replace(kept.cluster, kept.name, material)
            if material.facts.fingerprint != held.facts.fingerprint
            else None
        )
    except MarchproxyError as error:
        tries.failed(error.message, error.again if isinstance(error, SourceFailed) else 0.0)
        raise
    tries.succeeded()
    return made


def _is_late(held: Certificate) -> bool:
    facts = held.facts
    return datetime.now(UTC) >= facts.expires - (facts.expires - facts.begins) / SHARE
