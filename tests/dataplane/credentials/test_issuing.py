"""JWTs that are written here are read here, and say what the service asks for."""

from datetime import UTC, datetime, timedelta

import pytest

from marchproxy.dataplane.credentials.book import CredentialBook, JwtService, Verified
from marchproxy.dataplane.credentials.issuing import write_jwt
from marchproxy.dataplane.credentials.jws import read
from marchproxy.dataplane.credentials.signatures import verifier
from marchproxy.model.entities import Auth, JwtAlgorithm, Service
from marchproxy.model.presented import Presented
from marchproxy.store.tokens import Token, digest
from tests.dataplane.credentials.jwts import NOW, SECRET

TIME = datetime.fromtimestamp(NOW, UTC)
RECORD = Token(5, "lab/api", digest("j"), "j", TIME, TIME + timedelta(hours=1), None, None, None)


@pytest.mark.parametrize("algorithm", [JwtAlgorithm.HS256, JwtAlgorithm.HS384, JwtAlgorithm.HS512])
@pytest.mark.parametrize(("audience", "issuer"), [(None, None), ("https://api", "me")])
def test_it_opens_the_service(algorithm: JwtAlgorithm, audience: str | None, issuer: str | None) -> None:
    service = Service(
        "api", (), auth=Auth.JWT, jwt_algorithm=algorithm, jwt_audience=audience, jwt_issuer=issuer
    )
    text = write_jwt(service, RECORD, SECRET)
    jwt = read(text)
    assert (jwt.issuer, jwt.audience) == (issuer or "marchproxy", (audience or "lab/api",))
    assert (jwt.jti, jwt.expires) == ("j", NOW + 3600)
    taker = JwtService("lab/api", verifier(algorithm, SECRET), audience, issuer)
    book = CredentialBook([RECORD], jwt_services=[taker])
    found = book.verify(Presented(text), ["lab/api"], TIME)
    assert isinstance(found, Verified)
    assert (found.service, found.token) == ("lab/api", "5")
