"""The command line's fixtures serve here as well."""

from tests.cli.conftest import console, daemon, site

__all__ = ["console", "daemon", "site"]
