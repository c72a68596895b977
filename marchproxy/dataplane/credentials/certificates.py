"""Keeps the certificates that the plan's listeners want, and knows when they end."""

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta

from marchproxy.dataplane.credentials.contexts import Contexts, Unusable, server_context
from marchproxy.dataplane.intent import Intent
from marchproxy.dataplane.status import CertificateState, Problem
from marchproxy.model.certificate import Certificate
from marchproxy.model.errors import MarchproxyError
from marchproxy.policy.plan import Plan
from marchproxy.store.certificates import Identity, Opened

COMPONENT = "certificates"


class CertificateKeeper:
    """`identities` are those that TLS is spoken with now. Keys of others stay sealed."""

    def __init__(self, intent: Intent) -> None:
        self.identities: tuple[Identity, ...] = ()
        """Another object whenever that changes."""
        self.contexts = Contexts()
        """Made of them, for this process."""
        self._intent = intent
        self._opened = Opened()
        self._unusable: dict[str, str] = {}
        self._failure = ""

    async def read(self, plan: Plan) -> None:
        """Know what `plan` wants, before it is carried out, beside what is carried out until then.

        Raises `MarchproxyError`, and leaves what there was.
        """
        await self._read(plan.certificates | self._intent.plan.certificates)

    async def reload(self) -> None:
        """Read again what is carried out, and forget what is not. Raises as `read`."""
        await self._read(self._intent.plan.certificates)

    def problems(self) -> Sequence[Problem]:
        """What TLS cannot be spoken with, or no client accepts any more."""
        now = datetime.now(UTC)
        expired = [
            f"certificate {each.qualified} expired at {_end(each)}: {_remedy(each)}"
            for each in self._opened.certificates
            if each.facts.expires <= now
        ]
        said = (self._failure, *self._opened.failures, *self._unusable.values(), *expired)
        return [Problem(COMPONENT, text) for text in said if text]

    def warnings(self) -> Sequence[Problem]:
        """What expires soon, by the settings that are carried out."""
        now = datetime.now(UTC)
        ahead = timedelta(seconds=self._intent.plan.settings.certificate_warning)
        return [
            Problem(COMPONENT, f"certificate {each.qualified} expires at {_end(each)}: {_remedy(each)}")
            for each in self._opened.certificates
            if each.warns(ahead) <= now < each.facts.expires
        ]

    def complaint(self, name: str) -> str:
        """Why clients do not get past TLS with that certificate, as a sentence; empty: nothing is wrong."""
        state = next((each for each in self.states() if each.name == name), None)
        if state is None:
            return f"no client gets past TLS: certificate {name} is not there: marchproxy cert add"
        if not state.usable:
            return f"no client gets past TLS: {self._unusable.get(name, f'certificate {name} is of no use')}"
        if state.expires <= time.time():
            end = _date(state.expires)
            return f"no client gets past TLS: certificate {name} expired at {end}: marchproxy cert renew"
        return ""

    def states(self) -> Sequence[CertificateState]:
        """The certificates that are wanted, as far as there are any."""
        usable = {each.name for each in self.identities}
        return [
            CertificateState(
                each.qualified,
                each.facts.hosts,
                each.facts.issuer,
                each.facts.fingerprint,
                each.facts.expires.timestamp(),
                each.qualified in usable,
            )
            for each in self._opened.certificates
        ]

    async def _read(self, names: AbstractSet[str]) -> None:
        if not names and not self._opened.certificates:
            self._opened, self._failure = Opened(), ""
            return
        try:
            opened = await self._intent.read(lambda store: store.certificates.open(names))
        except MarchproxyError as error:
            self._failure = f"they cannot be read: {error.message}"
            raise
        self._failure = ""
        self._opened = opened
        self._unusable = {name: why for name, why in self._unusable.items() if name in names}
        usable = tuple(each for each in opened.identities if self._check(each))
        if usable != self.identities:
            self.identities = usable
            self.contexts.learn(usable)

    def _check(self, identity: Identity) -> bool:
        """Whether the TLS library takes it. Asked here once, and not by the first client."""
        if identity in self.identities:
            return True
        self._unusable.pop(identity.name, None)
        try:
            server_context(identity)
        except Unusable as error:
            self._unusable[identity.name] = error.message
        return identity.name not in self._unusable


def _end(certificate: Certificate) -> str:
    return _date(certificate.facts.expires.timestamp())


def _remedy(certificate: Certificate) -> str:
    if certificate.fetched:
        return f"marchproxy cert pull {certificate.name} --now"
    return "marchproxy cert renew"


def _date(instant: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(instant))
