"""A CA that speaks ACME as far as a client needs it, strict about signatures, and led astray by a test."""

import json
import socket
import ssl
import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from marchproxy.client.acmeresponder import PREFIX
from marchproxy.client.acmetls import IDENTIFIER
from tests.certificates import authority

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
NAMES = ("newNonce", "newAccount", "newOrder")


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered; the body may be anything."""

    status: int
    body: Any
    fields: dict[str, str] = field(default_factory=dict)


def problem(status: int, kind: str, detail: str = "", **fields: str) -> Reply:
    """A refusal."""
    return Reply(status, {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}, fields)


class Ca:
    """Holds one account and one order at a time."""

    def __init__(self) -> None:
        self.url = ""
        self.port = 0
        """Where it looks for answers to challenges, instead of port 80."""
        self.meta: dict[str, Any] = {}
        self.twists: dict[str, Callable[[Any], Reply]] = {}
        """By path: answers in the place of what is right; they are given the payload."""
        self.asked: list[tuple[str, Any]] = []
        """Paths and payloads."""
        self.keys: list[Any] = []
        self.orders = 0
        self.life = timedelta(days=90)
        self._nonces: set[str] = set()
        self._made = 0
        self._status = ""
        self._hosts: list[str] = []
        self._chain = ""

    def nonce(self) -> str:
        """One that is good once."""
        self._made += 1
        self._nonces.add(f"nonce{self._made}")
        return f"nonce{self._made}"

    def reply(self, path: str, raw: bytes) -> Reply:
        """To one request."""
        payload = self._verified(path, json.loads(raw)) if raw else None
        if isinstance(payload, Reply):
            return payload
        self.asked.append((path, payload))
        if path in self.twists:
            return self.twists[path](payload)
        usual: Reply = getattr(self, f"_{path.strip('/').replace('-', '_')}")(payload)
        return usual

    def _verified(self, path: str, jws: Any) -> Any:
        protected = json.loads(_decoded(jws["protected"]))
        assert protected["url"] == self.url + path
        assert protected["alg"] == "ES256"
        if protected["nonce"] not in self._nonces:
            return problem(400, "badNonce", "this one is none")
        self._nonces.remove(protected["nonce"])
        key = protected.get("jwk") or self.keys[int(protected["kid"].rpartition("/")[2])]
        x, y = (int.from_bytes(_decoded(key[name])) for name in ("x", "y"))
        public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        mark = _decoded(jws["signature"])
        public.verify(
            encode_dss_signature(int.from_bytes(mark[:32]), int.from_bytes(mark[32:])),
            f"{jws['protected']}.{jws['payload']}".encode(),
            ec.ECDSA(SHA256()),
        )
        payload: Any = json.loads(_decoded(jws["payload"])) if jws["payload"] else None
        return payload | {"jwk": key} if path == "/newAccount" else payload

    def _directory(self, _: Any) -> Reply:
        return Reply(200, {"meta": self.meta} | {name: f"{self.url}/{name}" for name in NAMES})

    def _newNonce(self, _: Any) -> Reply:
        return Reply(200, b"")

    def _newAccount(self, payload: Any) -> Reply:
        known = payload["jwk"] in self.keys
        if not known and payload.get("onlyReturnExisting"):
            return problem(400, "accountDoesNotExist")
        if not known:
            self.keys.append(payload["jwk"])
        place = f"{self.url}/account/{self.keys.index(payload['jwk'])}"
        return Reply(200 if known else 201, {"status": "valid"}, {"Location": place})

    def _newOrder(self, payload: Any) -> Reply:
        self.orders += 1
        self._status = "pending"
        self._hosts = [each["value"] for each in payload["identifiers"]]
        return Reply(201, self._document(), {"Location": f"{self.url}/order"})

    def _order(self, _: Any) -> Reply:
        return Reply(200, self._document())

    def _authorization(self, _: Any) -> Reply:
        status = "pending" if self._status == "pending" else "valid"
        challenges = [
            {"type": "dns-01", "url": f"{self.url}/other", "token": "x"},
            {"type": "http-01", "url": f"{self.url}/challenge", "token": TOKEN},
            {"type": "tls-alpn-01", "url": f"{self.url}/challenge-tls", "token": TOKEN},
        ]
        identifier = {"type": "dns", "value": self._hosts[0]}
        return Reply(200, {"status": status, "identifier": identifier, "challenges": challenges})

    def _challenge(self, _: Any) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", PREFIX + TOKEN)
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status == 200
        assert said.startswith(f"{TOKEN}.".encode())
        self._status = "ready"
        return Reply(200, {"status": "processing"})

    def _challenge_tls(self, _: Any) -> Reply:
        shown = x509.load_der_x509_certificate(shown_at(self.port, self._hosts[0]))
        found = shown.extensions.get_extension_for_oid(x509.ObjectIdentifier(IDENTIFIER))
        assert found.critical
        named = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert named.get_values_for_type(x509.DNSName) == [self._hosts[0]]
        self._status = "ready"
        return Reply(200, {"status": "processing"})

    def _finalize(self, payload: Any) -> Reply:
        request = x509.load_der_x509_csr(_decoded(payload["csr"]))
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(each.value) for each in names] == self._hosts
        assert request.is_signature_valid
        self._chain = signed_for(request, self.life)
        self._status = "valid"
        return Reply(200, self._document())

    def _certificate(self, _: Any) -> Reply:
        return Reply(200, self._chain.encode())

    def _document(self) -> dict[str, Any]:
        return {
            "status": self._status,
            "authorizations": [f"{self.url}/authorization"],
            "finalize": f"{self.url}/finalize",
            "certificate": f"{self.url}/certificate",
        }


def shown_at(port: int, name: str, protocol: str = "acme-tls/1") -> bytes:
    """The certificate, in DER, that is shown to a CA, once this protocol was agreed on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        assert secured.selected_alpn_protocol() == protocol
        shown = secured.getpeercert(binary_form=True)
        assert secured.recv(1) == b""
        assert shown is not None
        return shown


def signed_for(request: x509.CertificateSigningRequest, life: timedelta, *hosts: str) -> str:
    """What a request is answered with, for its hosts, or for others."""
    made = authority()
    signer = x509.load_pem_x509_certificate(made.chain.encode())
    key = load_pem_private_key(made.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    wanted = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]) if hosts else wanted
    now = datetime.now(UTC).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(signer.subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + life)
        .public_key(request.public_key())
        .add_extension(names, critical=True)
        .sign(key, SHA384())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


@contextmanager
def serving(ca: Ca) -> Iterator[Ca]:
    """At an address of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            made = ca.reply(self.path, self.rfile.read(size))
            raw = made.body if isinstance(made.body, bytes) else json.dumps(made.body).encode()
            self.send_response(made.status)
            fields = {"Replay-Nonce": ca.nonce(), "Content-Length": str(len(raw))} | made.fields
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        do_GET = do_POST = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            """Not here."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ca.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield ca
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
