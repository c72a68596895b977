"""What a server's TLS is made of: one context for each certificate, made anew when that is renewed.

Connections that stand keep the context that they began with.
"""

import os
import ssl
from collections.abc import Iterable

from marchproxy.model.errors import MarchproxyError
from marchproxy.store.certificates import Identity

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those with forward secrecy and authenticated encryption. TLS 1.3 has no others."""


class Unusable(MarchproxyError):
    """The TLS library does not take a certificate."""


class Contexts:
    """Contexts by the qualified names of certificates."""

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}
        self._made: dict[tuple[str, tuple[str, ...]], ssl.SSLContext] = {}
        self._choosing: dict[tuple[tuple[str, ...], tuple[str, ...]], ssl.SSLContext] = {}
        self._trusting: dict[tuple[str, ...], ssl.SSLContext] = {}

    def learn(self, identities: Iterable[Identity]) -> None:
        """These are all that there are. What has not changed keeps its context, and the sessions of it."""
        self._choosing.clear()
        before, self._identities = self._identities, {each.name: each for each in identities}
        self._made = {
            key: context
            for key, context in self._made.items()
            if self._identities.get(key[0]) == before.get(key[0])
        }

    def choosing(self, names: tuple[str, ...], protocols: tuple[str, ...]) -> ssl.SSLContext | None:
        """One for several certificates, of which the client's TLS name chooses (RFC 6066 section 3).

        A name that none of them is for gets the first: the client then says itself what it thinks of it.
        """
        key = names, protocols
        if key not in self._choosing:
            usable = [(name, made) for name in names if (made := self.server(name, protocols)) is not None]
            if len(usable) < 2:
                return usable[0][1] if usable else None
            by_host = {host: made for name, made in reversed(usable) for host in self._hosts(name)}
            try:
                context = server_context(self._identities[usable[0][0]], protocols)
            except Unusable:
                return None

            def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
                host = (name or "").lower().rstrip(".")
                found = by_host.get(host) or by_host.get(f"*.{host.partition('.')[2]}")
                if found is not None:
                    tls.context = found

            context.sni_callback = choose
            self._choosing[key] = context
        return self._choosing[key]

    def identity(self, name: str) -> Identity | None:
        """A certificate with its key; None: it is not there."""
        return self._identities.get(name)

    def _hosts(self, name: str) -> tuple[str, ...]:
        from marchproxy.store.x509 import hosts_of

        return hosts_of(self._identities[name].chain)

    def client(self, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
        """For backends: who proves its name by a certificate that the system trusts. `protocols`: ALPN."""
        if protocols not in self._trusting:
            made = self._trusting[protocols] = ssl.create_default_context()
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            if protocols:
                made.set_alpn_protocols(list(protocols))
        return self._trusting[protocols]

    def server(self, name: str, protocols: tuple[str, ...] = ()) -> ssl.SSLContext | None:
        """The context of a certificate, and of ALPN `protocols`; None: it is not there, or of no use."""
        identity, key = self._identities.get(name), (name, protocols)
        if identity is None:
            return None
        if key not in self._made:
            try:
                self._made[key] = server_context(identity, protocols)
            except Unusable:
                return None
        return self._made[key]


def server_context(identity: Identity, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 with this certificate; tickets are OpenSSL's. Raises `Unusable`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    _load(context, identity)
    return context


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    """Python's ssl takes files only: one in memory, which has no name that anybody else could open."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(identity.key + identity.chain.encode("ascii"))
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (OSError, ValueError) as error:
        # An `ssl.SSLError` is an `OSError`, and its reason says what was wrong.
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise Unusable(f"the TLS library does not take certificate {identity.name!r}: {why}") from None
    finally:
        os.close(descriptor)
