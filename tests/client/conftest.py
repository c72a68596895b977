"""The command line's fixtures serve here as well."""

from tests.cli.conftest import console, daemon, furnished, site

__all__ = ["console", "daemon", "furnished", "site"]
