"""Flags that narrow flows and events. The daemon applies them, and says what is wrong about them."""

from typing import Annotated, Any

import typer

from marchproxy.cli import suggest


def option(name: str, metavar: str, text: str, **settings: Any) -> Any:
    """A flag with a value."""
    return typer.Option(f"--{name}", metavar=metavar, help=text, **settings)


SourceOption = Annotated[str | None, option("source", "ADDR", "Only from this address or prefix")]
DestinationOption = Annotated[str | None, option("destination", "ADDR", "Only to this address or prefix")]
PortOption = Annotated[str | None, option("port", "N", "Only with this port on either side")]
ProtocolOption = Annotated[str | None, option("protocol", "P", "Only tcp, udp or icmp")]
MappingOption = Annotated[
    str | None, option("mapping", "NAME", "Only decided by this mapping", autocompletion=suggest.mappings)
]
ServiceOption = Annotated[
    str | None, option("service", "NAME", "Only from or to this service", autocompletion=suggest.services)
]
ReasonOption = Annotated[str | None, option("reason", "REASON", "Only with this reason, such as NO_MAPPING")]
TextOption = Annotated[
    str | None, option("text", "TEXT", "Only with this in an address, service, mapping, name or reason")
]
