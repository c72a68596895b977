"""Certificates of a CA that speaks ACME (RFC 8555; addresses by RFC 8738), by challenges of the kinds HTTP-01
and TLS-ALPN-01 (RFC 8737).

Nothing of an order is kept: whoever is killed in the middle begins another one. Every address that the CA
names has to be its own, so that no answer of it leads elsewhere.
"""

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from marchproxy.client.acmekeys import AccountKey
from marchproxy.client.acmeresponder import Answers, HttpAnswers, answering, listening
from marchproxy.client.acmetls import TlsAnswers, handed, handed_over
from marchproxy.client.asking import Answer, Document, Server, SourceFailed, document_in
from marchproxy.client.certorigin import TLS_ALPN, Account, Origin, hosts_of, is_address
from marchproxy.model.endpoint import parse_endpoint
from marchproxy.model.publickey import encode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PATIENCE = 120.0
"""Seconds for an order, of which the CA takes most to look at the challenges."""
LONGEST_REST = 86_400.0
"""Seconds that a CA may ask to be left alone; more is taken for this."""
_TRIES = 3
"""Of one request; a CA may not know a nonce any more, and says another one (section 6.5)."""
_FIRST_LOOK, _LAST_LOOK = 0.1, 5.0
"""Seconds between two looks at what the CA is at, at first and at last."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")
_TEXT = 300
"""Characters of what a CA says that are shown."""


class Acme:
    """A `Source`."""

    issues = True

    def __init__(self, origin: Origin, account: Account | None) -> None:
        self._origin = origin
        self._account = account

    def fetch(self) -> tuple[bytes, bytes]:
        """See `Source`. Raises also what `Account` does."""
        if self._account is None:
            raise SourceFailed("an account is needed")
        hosts = hosts_of(self._origin)
        self._account.expect_free()
        with self._answering(self._account) as answers:
            self._account.begin()
            authority = _Authority(self._origin, AccountKey(self._account.key()))
            authority.register(self._origin)
            order, place = authority.order(hosts)
            for each in _strings(order, "authorizations")[: len(hosts)]:
                authority.prove(each, answers)
            order = authority.settled(place, ("pending",))
            _expect(order, "ready", "order")
            key = _new_key()
            authority.read(authority.post(_string(order, "finalize"), {"csr": _request(key, hosts)}))
            order = authority.settled(place, ("ready", "processing"))
            _expect(order, "valid", "order")
            chain = authority.post(_string(order, "certificate"), None).body
        _check_hosts(chain, hosts)
        return chain, _pem(key)

    def _answering(self, account: Account) -> AbstractContextManager[Answers]:
        """Raises `SourceFailed`."""
        options = self._origin.options
        answers: Answers = TlsAnswers() if options.get("challenge") == TLS_ALPN else HttpAnswers()
        if "listen" in options:
            return answering(answers, listening(parse_endpoint(options["listen"])))
        return answering(answers, handed_over(account.meeting), handed)


class _Authority:
    """Signed requests to one CA, for one order."""

    def __init__(self, origin: Origin, key: AccountKey) -> None:
        parts = urlsplit(origin.url)
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._own = (parts.scheme, parts.hostname, _port(parts))
        self._server = Server(self._base, origin.ca)
        self._key = key
        self._until = time.monotonic() + PATIENCE
        self._nonce = ""
        self._account = ""
        self._places = self.read(self._ask("GET", origin.url))

    def register(self, origin: Origin) -> None:
        """Have an account: the one of this key, or a new one (section 7.3)."""
        place = _string(self._places, "newAccount")
        try:
            self._account = self._location(self.post(place, {"onlyReturnExisting": True}))
        except _Refused as error:
            if error.kind != "accountDoesNotExist":
                raise
        else:
            return
        payload: Document = {}
        meta = self._places.get("meta")
        terms = meta.get("termsOfService") if isinstance(meta, dict) else None
        if terms is not None:
            if origin.options.get("terms") != "agreed":
                raise SourceFailed(
                    f"{self._base}: it wants agreement to its terms, {_plain(terms)}",
                    hint="read them, and say --agree-terms",
                )
            payload["termsOfServiceAgreed"] = True
        if contact := origin.options.get("contact"):
            payload["contact"] = [f"mailto:{contact}"]
        if key_id := origin.options.get("key_id"):
            payload["externalAccountBinding"] = self._key.bound(key_id, origin.secret, place)
        self._account = self._location(self.post(place, payload))

    def order(self, hosts: Sequence[str]) -> tuple[Document, str]:
        """A new order for them, and where it is (section 7.4)."""
        wanted = [{"type": "ip" if is_address(host) else "dns", "value": host} for host in hosts]
        answer = self.post(_string(self._places, "newOrder"), {"identifiers": wanted})
        return self.read(answer), self._location(answer)

    def prove(self, place: str, answers: Answers) -> None:
        """Show that a host is ours, if the CA does not know it yet (section 7.5)."""
        wanted = self.read(self.post(place, None))
        host = _host(wanted)
        if wanted.get("status") != "pending":
            _expect(wanted, "valid", f"authorization of {host}")
            return
        offered = wanted.get("challenges")
        challenges = [each for each in offered if isinstance(each, dict)] if isinstance(offered, list) else []
        chosen = next((each for each in challenges if each.get("type") == answers.kind), None)
        if chosen is None:
            raise SourceFailed(f"{self._base}: it offers no challenge {answers.kind} for {host}")
        token = _string(chosen, "token")
        if not _TOKEN.fullmatch(token):
            raise SourceFailed(f"{self._base}: the token of its challenge is none")
        answers.give(host, token, self._key.authorization(token))
        self.post(_string(chosen, "url"), {})
        _expect(self.settled(place, ("pending",)), "valid", f"authorization of {host}")

    def settled(self, place: str, passing: Sequence[str]) -> Document:
        """What is there once its status is none of these."""
        pause = _FIRST_LOOK
        while True:
            answer = self.post(place, None)
            document = self.read(answer)
            if document.get("status") not in passing:
                return document
            wanted = _seconds(answer.fields)
            pause = min(pause * 2, _LAST_LOOK)
            wait = max(pause, min(wanted, _LAST_LOOK))
            if time.monotonic() + wait > self._until:
                status = f"it is {_plain(document.get('status'))}{_trouble(document)}"
                raise SourceFailed(f"{self._base}: not done within {PATIENCE:.0f} s; {status}")
            time.sleep(wait)

    def post(self, url: str, payload: Document | None) -> Answer:
        """What is answered with success. Raises `SourceFailed`."""
        for last in (False,) * (_TRIES - 1) + (True,):
            who = {"kid": self._account} if self._account else {"jwk": self._key.public}
            protected = {**who, "nonce": self._take_nonce(), "url": url}
            try:
                return self._ask("POST", url, self._key.sign(protected, payload))
            except _Refused as error:
                if error.kind != "badNonce" or last:
                    raise
        raise AssertionError

    def read(self, answer: Answer) -> Document:
        """The object that it is. Raises `SourceFailed`."""
        document = document_in(answer.body)
        if document is None:
            raise SourceFailed(f"{self._base}: the answer is no object of JSON")
        return document

    def _take_nonce(self) -> str:
        if not self._nonce:
            self._ask("HEAD", _string(self._places, "newNonce"))
        nonce, self._nonce = self._nonce, ""
        if not nonce:
            raise SourceFailed(f"{self._base}: it gives no nonce")
        return nonce

    def _ask(self, method: str, url: str, body: bytes | None = None) -> Answer:
        if time.monotonic() > self._until:
            raise SourceFailed(f"{self._base}: not done within {PATIENCE:.0f} s")
        fields = {"Content-Type": "application/jose+json"} if body is not None else {}
        answer = self._server.exchange(method, self._target(url), fields, body)
        self._nonce = answer.fields.get("replay-nonce", "")
        if answer.status not in (200, 201, 204):
            raise _refusal(self._base, answer)
        return answer

    def _target(self, url: str) -> str:
        """The path of an address, which has to be the CA's, and fit for the first line of a request."""
        parts = _read_url(url) if url.isascii() and url.isprintable() and " " not in url else None
        if parts is None or (parts.scheme, parts.hostname, _port(parts)) != self._own:
            raise SourceFailed(f"{self._base}: it names an address that is not its own: {_plain(url)}")
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def _location(self, answer: Answer) -> str:
        place = answer.fields.get("location", "")
        if not place:
            raise SourceFailed(f"{self._base}: the answer has no Location")
        self._target(place)
        return place


class _Refused(SourceFailed):
    """The CA answered with a problem (section 6.7)."""

    def __init__(self, message: str, kind: str, again: float) -> None:
        super().__init__(message, again=again)
        self.kind = kind
        """`badNonce`, `rateLimited` and so on; empty: it has not said."""


def _refusal(base: str, answer: Answer) -> _Refused:
    problem = document_in(answer.body) or {}
    kind = _plain(problem.get("type", "")).rpartition(":")[2]
    again = _seconds(answer.fields) if answer.status in (429, 503) else 0.0
    return _Refused(f"{base}: HTTP {answer.status}{_said(problem)}", kind, again)


def _expect(document: Document, status: str, what: str) -> None:
    """Raise `SourceFailed` where it has come to another end."""
    found = document.get("status")
    if found == status:
        return
    raise SourceFailed(f"the {what} is {_plain(found)}{_trouble(document)}")


def _trouble(document: Document) -> str:
    """What went wrong with an order, or with a challenge of an authorization; some CAs go on trying."""
    parts = [document, *_dicts(document.get("challenges"))]
    return next((_said(each["error"]) for each in parts if isinstance(each.get("error"), dict)), "")


def _said(problem: Mapping[str, Any]) -> str:
    """A problem document in words (RFC 7807), with those of its parts."""
    kind = _plain(problem.get("type", "")).rpartition(":")[2]
    detail = _plain(problem.get("detail", ""))
    parts = [_plain(each.get("detail", "")) for each in _dicts(problem.get("subproblems"))[:3]]
    text = "; ".join(part for part in (detail, *parts) if part)
    return "".join(f": {each}" for each in (kind, text) if each)


def _read_url(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _seconds(fields: Mapping[str, str]) -> float:
    """What Retry-After says; 0: nothing that can be read."""
    text = fields.get("retry-after", "").strip()
    try:
        wanted = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, min(wanted, LONGEST_REST))


def _check_hosts(chain: bytes, hosts: Sequence[str]) -> None:
    from marchproxy.store.x509 import hosts_of as named

    try:
        found = {host.lower() for host in named(chain.decode("ascii"))}
    except ValueError:
        raise SourceFailed("what the CA gives is no certificate") from None
    if missing := [host for host in hosts if host not in found]:
        raise SourceFailed(f"the certificate that the CA gives is not for {', '.join(missing)}")


def _request(key: "EllipticCurvePrivateKey", hosts: Sequence[str]) -> str:
    """A signing request (RFC 2986) as section 7.4 wants it: DER in base64url."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    names: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(host)) if is_address(host) else x509.DNSName(host) for host in hosts
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    made = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, SHA256())
    return encode(made.public_bytes(Encoding.DER))


def _new_key() -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: "EllipticCurvePrivateKey") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _host(authorization: Document) -> str:
    identifier = authorization.get("identifier")
    return _plain(identifier.get("value", "")) if isinstance(identifier, dict) else "a host"


def _string(document: Document, name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or not found:
        raise SourceFailed(f"the CA's answer has no {name!r}")
    return found


def _strings(document: Document, name: str) -> Sequence[str]:
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise SourceFailed(f"the CA's answer has no {name!r}")
    return found


def _dicts(found: object) -> Sequence[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _plain(text: object) -> str:
    """On one line, and not endless: what a stranger says is shown to people."""
    return "".join(each if each.isprintable() else "?" for each in str(text)[:_TEXT])
