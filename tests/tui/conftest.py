"""The command line's fixtures serve here as well; and tabs ask more often than an operator needs."""

import pytest

from marchproxy.tui import app
from marchproxy.tui.views.catalogue import Catalogue
from marchproxy.tui.views.view import View
from tests.cli.conftest import console, daemon, furnished, site

__all__ = ["console", "daemon", "furnished", "site"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "EVERY", 0.1)
    for view in (View, Catalogue, *View.__subclasses__()):
        monkeypatch.setattr(view, "EVERY", 0.1)
