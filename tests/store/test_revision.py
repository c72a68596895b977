import os
import pwd

import pytest

from marchproxy.store.revision import current_author


def test_the_author_is_who_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert current_author() == pwd.getpwuid(os.getuid()).pw_name


def test_behind_sudo_it_is_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert current_author() == "ada"


def test_only_root_is_behind_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everyone else may set the variable to anything."""
    monkeypatch.setattr(os, "getuid", lambda: 1)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert current_author() == pwd.getpwuid(1).pw_name


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    assert current_author() == "uid 3999999999"
