"""What `explain --to` names: an address, a service, a host, or the URL of one."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from marchproxy.cli.errors import WrongUsage
from marchproxy.model.errors import InvalidValue
from marchproxy.model.ports import parse_port

SCHEMES = {"http": 80, "ws": 80, "https": 443, "wss": 443}
"""Schemes of URLs, and the ports that they mean."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A host, as an address or by a name, and what a URL says beside it."""

    host: str
    port: str | None = None
    path: str = ""
    """Without the query; empty: none that means anything."""
    query: str = ""


def read_goal(text: str, port: str | None, *, field: str = "to") -> Goal:
    """`--to` and `--port`. Raises `InvalidValue` for a URL that is none, `WrongUsage` for two ports."""
    if "://" not in text:
        return Goal(text, port)
    try:
        parts = urlsplit(text)
        host, own = parts.hostname, parts.port
    except ValueError:
        host, own, parts = None, None, urlsplit("")
    if not host or parts.scheme not in SCHEMES:
        raise InvalidValue(field, text, "a URL such as https://db.example.com:8443/path")
    own = own or SCHEMES[parts.scheme]
    if port is not None and parse_port(port) != own:
        raise WrongUsage(f"--port {port} is not the one of {text}, which is {own}")
    return Goal(host, str(own), parts.path if parts.path != "/" else "", parts.query)
