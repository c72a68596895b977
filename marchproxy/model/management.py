"""The way in for whoever has to repair things: ports of the host that no policy can take over."""

from collections.abc import Mapping

from marchproxy.model.ports import parse_port

MANAGEMENT_PORTS = frozenset({22})
"""TCP ports, unless the environment names others."""
VARIABLE = "MARCHPROXY_MANAGEMENT_PORTS"


def read_management_ports(variables: Mapping[str, str]) -> frozenset[int]:
    """The TCP ports that always reach the host: those of `VARIABLE`, separated by commas, or 22.

    Raises `InvalidValue`: passing over a slip silently would lock somebody out.
    """
    parts = [part for part in variables.get(VARIABLE, "").split(",") if part.strip()]
    return frozenset(parse_port(part, field=VARIABLE) for part in parts) or MANAGEMENT_PORTS
