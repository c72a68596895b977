"""Credentials as presented."""

from marchproxy.model.presented import Presented


def test_its_secret_is_in_no_text_of_it() -> None:
    assert "s3cret" not in f"{Presented('s3cret', 'web')!r} {Presented('s3cret')}"
