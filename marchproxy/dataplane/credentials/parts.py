"""What a book is made of, as values that can be sent to another process: a `Verifier` cannot."""

from dataclasses import dataclass, field

from marchproxy.dataplane.credentials.book import CredentialBook, JwtService
from marchproxy.dataplane.credentials.signatures import verifier
from marchproxy.model.entities import JwtAlgorithm
from marchproxy.model.publickey import PublicKey
from marchproxy.store.tokens import Token


@dataclass(frozen=True, slots=True)
class JwtPart:
    """A service that takes JWTs, with what its signatures are checked by."""

    name: str
    """The qualified name."""
    algorithm: JwtAlgorithm
    keys: tuple[PublicKey, ...] | bytes = field(repr=False)
    audience: str | None
    issuer: str | None


@dataclass(frozen=True, slots=True)
class BookParts:
    """Everything that a book knows from the start."""

    tokens: tuple[Token, ...] = ()
    token_services: frozenset[str] = frozenset()
    jwt: tuple[JwtPart, ...] = ()
    cookie_key: bytes = field(default=b"", repr=False)

    def book(self) -> CredentialBook:
        """A book of it."""
        return CredentialBook(
            self.tokens,
            token_services=self.token_services,
            cookie_key=self.cookie_key,
            jwt_services=[
                JwtService(part.name, verifier(part.algorithm, part.keys), part.audience, part.issuer)
                for part in self.jwt
            ],
        )
