"""What a server's TLS is made of: one context for each certificate, made anew when that is renewed.

Connections that stand keep the context that they began with. Sessions outlive it: who began one with the
certificate of before resumes it, at whatever worker.
"""

import ssl
from collections.abc import Iterable

from marchproxy.dataplane.credentials.openssl import set_suites
from marchproxy.dataplane.credentials.tickets import Tickets
from marchproxy.model.errors import MarchproxyError
from marchproxy.policy.plan import ClientTls
from marchproxy.store.certificates import Identity
from marchproxy.store.memfile import in_memory

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those with forward secrecy and authenticated encryption. TLS 1.3 has no others."""
SUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""Of TLS 1.3, best first. OpenSSL prefers SHA-384, for which processors have no instructions as for SHA-256:
a tenth of what a handshake takes. What is agreed on by X25519 is no stronger for it."""

MOST_KEPT = 64
"""Contexts of one kind: those of policies that are no more go with the others."""


class Unusable(MarchproxyError):
    """The TLS library does not take a certificate."""


class Contexts:
    """Contexts by the qualified names of certificates."""

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}
        self._made: dict[tuple[str, tuple[str, ...]], ssl.SSLContext] = {}
        self._choosing: dict[tuple[tuple[str, ...], tuple[str, ...]], ssl.SSLContext] = {}
        self._trusting: dict[tuple[str, tuple[str, ...], str, bool], ssl.SSLContext] = {}
        """By authorities, ALPN protocols, the certificate that is shown, and whether theirs is verified."""
        self._asking: dict[tuple[str, tuple[str, ...], ClientTls, bool], ssl.SSLContext] = {}
        self._tickets = Tickets()

    def share(self, secret: bytes) -> None:
        """From now on resume what others with this secret have begun; see `Tickets`."""
        self._tickets = Tickets(secret)
        self._guard_all()

    @property
    def secret(self) -> bytes:
        """What keys of tickets are made of, now."""
        self._renew()
        return self._tickets.secret

    def learn(self, identities: Iterable[Identity]) -> None:
        """These are all that there are. What has not changed keeps its context."""
        self._choosing.clear()
        self._asking.clear()
        self._trusting = {key: context for key, context in self._trusting.items() if not key[2]}
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
        self._renew()
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
            self._tickets.guard(context, key)
            self._choosing[key] = context
        return self._choosing[key]

    def identity(self, name: str) -> Identity | None:
        """A certificate with its key; None: it is not there."""
        return self._identities.get(name)

    def _hosts(self, name: str) -> tuple[str, ...]:
        from marchproxy.store.x509 import hosts_of

        return hosts_of(self._identities[name].chain)

    def client(
        self,
        authorities: str = "",
        protocols: tuple[str, ...] = (),
        certificate: str = "",
        *,
        verified: bool = True,
    ) -> ssl.SSLContext:
        """For backends: they prove their name by a certificate that `authorities` (PEM) vouch for, or without
        any the system's; unless they are not `verified`. `protocols`: ALPN. `certificate`: the qualified name
        of that which they are shown if they ask for one. Raises `ssl.SSLError` where that is not there.
        """
        key = authorities, protocols, certificate, verified
        made = self._trusting.get(key)
        if made is None:
            if len(self._trusting) >= MOST_KEPT:
                self._trusting.clear()
            if verified:
                made = ssl.create_default_context(cadata=authorities or None)
            else:
                made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                made.check_hostname = False
                made.verify_mode = ssl.CERT_NONE
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            if protocols:
                made.set_alpn_protocols(list(protocols))
            if certificate:
                self._show(made, certificate)
            self._trusting[key] = made
        return made

    def _show(self, context: ssl.SSLContext, certificate: str) -> None:
        identity = self._identities.get(certificate)
        try:
            if identity is None:
                raise Unusable(f"certificate {certificate} is not there")
            _load(context, identity)
        except Unusable as error:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, error.message) from None

    def named(self, names: tuple[str, ...], host: str) -> str | None:
        """Which of several certificates a client gets that asks for `host`, as `choosing` does; None: no one
        is there.
        """
        there = [name for name in names if name in self._identities]
        wild = f"*.{host.partition('.')[2]}"
        for wanted in (host, wild):
            for name in there:
                if wanted in self._hosts(name):
                    return name
        return there[0] if there else None

    def asking(
        self, name: str, protocols: tuple[str, ...], client: ClientTls, *, required: bool
    ) -> ssl.SSLContext | None:
        """As `server`, and clients are asked for a certificate that `client` takes; `required`: none without
        gets in. Sessions are of what was asked: nobody resumes one here that was asked for something else, or
        checked by another list of what is revoked.
        """
        identity, key = self._identities.get(name), (name, protocols, client, required)
        if identity is None:
            return None
        self._renew()
        if key not in self._asking:
            if len(self._asking) >= MOST_KEPT:
                self._asking.clear()
            try:
                context = server_context(identity, protocols)
                _ask(context, client)
            except Unusable:
                return None
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
            self._tickets.guard(context, key)
            self._asking[key] = context
        return self._asking[key]

    def server(self, name: str, protocols: tuple[str, ...] = ()) -> ssl.SSLContext | None:
        """The context of a certificate, and of ALPN `protocols`; None: it is not there, or of no use."""
        identity, key = self._identities.get(name), (name, protocols)
        if identity is None:
            return None
        self._renew()
        if key not in self._made:
            try:
                context = server_context(identity, protocols)
            except Unusable:
                return None
            self._tickets.guard(context, key)
            self._made[key] = context
        return self._made[key]

    def _renew(self) -> None:
        if self._tickets.renew():
            self._guard_all()

    def _guard_all(self) -> None:
        for made in (self._made, self._choosing, self._asking):
            for key, context in made.items():
                self._tickets.guard(context, key)


def server_context(identity: Identity, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
    """TLS 1.2 or 1.3 with this certificate. Raises `Unusable`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(CIPHERS)
    set_suites(context, SUITES)
    # Each connection brings another one. OpenSSL gives two, for who goes on with one session twice.
    context.num_tickets = 1
    if protocols:
        context.set_alpn_protocols(list(protocols))
    _load(context, identity)
    return context


def _ask(context: ssl.SSLContext, client: ClientTls) -> None:
    """Take certificates that `client` vouches for. Raises `Unusable`."""
    try:
        context.load_verify_locations(cadata=client.ca)
        if client.crl:
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
            with in_memory(client.crl.encode("ascii")) as path:
                context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise Unusable(f"the TLS library does not take the CA of clients: {error}") from None


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        with in_memory(identity.key + identity.chain.encode("ascii")) as path:
            context.load_cert_chain(path)
    except (OSError, ValueError) as error:
        # An `ssl.SSLError` is an `OSError`, and its reason says what was wrong.
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise Unusable(f"the TLS library does not take certificate {identity.name!r}: {why}") from None
