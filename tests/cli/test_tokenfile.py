"""Credentials come out of files and the environment."""

from pathlib import Path

import pytest

from marchproxy.cli.tokenfile import TOKEN_VARIABLE, read_token
from marchproxy.model.errors import InvalidValue
from tests.cli.console import Console


def test_the_file_goes_before_the_environment(console: Console, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert read_token(console.environment(), None) == ""
    console.variables[TOKEN_VARIABLE] = " def "
    assert read_token(console.environment(), None) == "def"
    assert read_token(console.environment(), str(file)) == "abc"


@pytest.mark.parametrize("content", [b"two words", b"\xff\xfe", b"a\x00b"])
def test_what_can_be_no_token_is_not_repeated(console: Console, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(InvalidValue) as caught:
        read_token(console.environment(), str(file))
    assert "words" not in str(caught.value)


def test_a_file_that_is_not_there(console: Console, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_token(console.environment(), str(tmp_path / "none"))
    assert "No such file" in caught.value.hint
