"""`marchproxy capture`: packets for Wireshark and tshark, with what was decided about each."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage, warn
from marchproxy.cli.flowfilters import (
    DestinationOption,
    MappingOption,
    PortOption,
    ProtocolOption,
    ReasonOption,
    ServiceOption,
    SourceOption,
    option,
)
from marchproxy.cli.framework import environment_of, single, verb
from marchproxy.client.control import Control
from marchproxy.client.units import parse_duration, parse_size, size
from marchproxy.model.errors import Conflict, InvalidValue, MarchproxyError

app = single()

type Sink = Callable[[bytes], None]


@verb(
    app,
    "capture",
    "marchproxy capture --write web.pcapng --service web --duration 30s",
    "marchproxy capture --denied --packets 100 | tshark -r - -T fields -e frame.comment",
    "marchproxy capture --source 10.1.0.7 --duration 1h | wireshark -k -i -",
    "marchproxy capture --mapping shop --port 443 --snap 128 --write - > shop.pcapng",
)
def capture(
    context: typer.Context,
    write: Annotated[
        str, option("write", "FILE", "Write to this file, which must not exist; - is stdout")
    ] = "-",
    denied: Annotated[
        bool, typer.Option("--denied", help="Only what is refused, or let through by audit")
    ] = False,
    source: SourceOption = None,
    destination: DestinationOption = None,
    port: PortOption = None,
    protocol: ProtocolOption = None,
    mapping: MappingOption = None,
    service: ServiceOption = None,
    reason: ReasonOption = None,
    duration: Annotated[str, option("duration", "TIME", "End after this time, such as 30s or 1h")] = "60s",
    packets: Annotated[
        int | None, option("packets", "N", "End after N packets", min=1, max=100_000_000)
    ] = None,
    most: Annotated[str, option("size", "BYTES", "End before the file gets larger than this")] = "64M",
    rate: Annotated[
        int, option("rate", "N", "Take at most N packets a second; the others are counted", min=1, max=10_000)
    ] = 1000,
    snap: Annotated[
        int, option("snap", "BYTES", "Keep only the beginning of each packet", min=64, max=32_768)
    ] = 2048,
) -> ExitCode:
    """Write packets to a file for Wireshark or tshark

    The file is pcapng. A packet of a flow is in it as it came and as it left, one that is refused as it came;
    each has a comment with the reason and the mapping that decided. Flags choose among packets as those of
    flows choose among flows. Nobody is told of the capture, and nothing of it stays: it ends with its limits,
    Ctrl-C, or this command. A capture holds what clients and servers say to each other; --snap 128 leaves
    little more than headers. What the host itself sends and receives is not in it.
    """
    gc.enable()
    environment = environment_of(context)
    query = {
        "source": source,
        "destination": destination,
        "port": port,
        "protocol": protocol,
        "mapping": mapping,
        "service": service,
        "reason": reason,
        "denied": denied,
        "duration": _some(parse_duration(duration), "duration", duration),
        "packets": packets,
        "size": _some(parse_size(most), "size", most),
        "rate": rate,
        "snap": snap,
    }
    if write == "-" and environment.stdout.isatty():
        raise WrongUsage(
            "a terminal cannot show packets", hint="give a file with --write, or pipe to tshark -r -"
        )
    pieces = Control(environment).pieces("/v1/capture", **query)
    # Asked first: what the daemon refuses leaves no file behind.
    first = next(pieces, b"")
    with _sink(environment, write) as sink:
        return _copy(environment, first, pieces, sink)


def _some(number: int, field: str, text: str) -> int:
    """The number, which is none of those that a request leaves out."""
    if not number:
        raise InvalidValue(field, text, "more than nothing")
    return number


def _copy(environment: Environment, first: bytes, pieces: Iterator[bytes], sink: Sink) -> ExitCode:
    from marchproxy.dataplane.capture import pcapng

    reader = pcapng.Reader()
    count = octets = missed = 0
    finished = True
    try:
        for piece in _all(first, pieces):
            for kind, block in reader.blocks(piece):
                sink(block)
                octets += len(block)
                count += kind == pcapng.PACKET
                missed = pcapng.dropped(block) if kind == pcapng.STATISTICS else missed
    except KeyboardInterrupt:
        pass
    except MarchproxyError as error:
        finished = False
        warn(environment, error.message, error.hint)
    environment.note(f"{count} packets, {size(octets)}")
    if missed:
        warn(
            environment,
            f"{missed} more came faster than --rate, or found no room",
            "choose fewer, or raise --rate",
        )
    return ExitCode.DONE if finished else ExitCode.NO_DAEMON


def _all(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


@contextmanager
def _sink(environment: Environment, name: str) -> Iterator[Sink]:
    """Where whole blocks go, at once: somebody may be watching. What is written can always be read."""
    if name == "-":
        # Python's own stream may hold back what it was given.
        descriptor = environment.stdout.fileno()
        yield lambda data: _write(descriptor, data)
        return
    # Only for its owner: it holds what others say to each other.
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{name} exists already", hint="name another file, or remove it") from None
    try:
        yield lambda data: _write_or_take_back(descriptor, data)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _write_or_take_back(descriptor: int, data: bytes) -> None:
    """On a full disk the file ends behind the last whole block."""
    end = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        _write(descriptor, data)
    except OSError:
        os.ftruncate(descriptor, end)
        raise
