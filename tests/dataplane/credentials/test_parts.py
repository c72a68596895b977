"""parts: what a book is made of travels as it is, and makes the same book."""

import pickle
from datetime import UTC, datetime

from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.credentials.parts import BookParts, JwtPart
from marchproxy.model.entities import JwtAlgorithm
from marchproxy.model.presented import Presented
from marchproxy.model.reason import Reason
from marchproxy.store.tokens import Token, digest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = Token(1, "default/web", digest("s3cret"), None, NOW, None, None, None, None)
PARTS = BookParts(
    (TOKEN,),
    frozenset({"default/web"}),
    (JwtPart("default/api", JwtAlgorithm.HS256, b"k" * 32, None, None),),
)


def test_a_book_of_parts_that_have_travelled_opens_the_same() -> None:
    for parts in (PARTS, pickle.loads(pickle.dumps(PARTS))):  # noqa: S301  (our own)
        book = parts.book()
        assert isinstance(book.verify(Presented("s3cret"), ["default/web"], NOW), Verified)
        assert book.verify(Presented("other"), ["default/web"], NOW) is Reason.AUTH_INVALID


def test_no_text_of_parts_holds_a_key() -> None:
    assert "kkkk" not in repr(PARTS)
