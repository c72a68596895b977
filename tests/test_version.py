"""marchproxy.version: the same answer from a checkout and from an installed package."""

from pathlib import Path

import pytest

from marchproxy.model.errors import MarchproxyError
from marchproxy.version import read_version


def test_checkout_keeps_it_beside_the_package(tmp_path: Path) -> None:
    (tmp_path / ".version").write_text("1.2.3\n")
    assert read_version(str(tmp_path / "marchproxy")) == "1.2.3"


@pytest.mark.parametrize("written", ["v1.2.3.1700000000", "1.2.3.1700000000"])
def test_a_build_and_a_v_may_stand_in_it(tmp_path: Path, written: str) -> None:
    (tmp_path / ".version").write_text(f"{written}\n")
    assert read_version(str(tmp_path / "marchproxy")) == "1.2.3.1700000000"


def test_installed_package_brings_its_own(tmp_path: Path) -> None:
    """Whatever lies in site-packages beside it belongs to somebody else."""
    (tmp_path / ".version").write_text("9.9.9\n")
    (tmp_path / "marchproxy").mkdir()
    (tmp_path / "marchproxy" / ".version").write_text("1.2.3\n")
    assert read_version(str(tmp_path / "marchproxy")) == "1.2.3"


def test_lost_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MarchproxyError, match=r"the file \.version is missing") as caught:
        read_version(str(tmp_path / "marchproxy"))
    assert caught.value.hint == "install marchproxy again"
