"""What is given hostile input, and what may come of it: each target takes bytes, and returns or fails.

A target knows the errors that its code may answer with; any other exception is a crash.
"""

import atexit
import base64
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import dns.rcode

from marchproxy.cli.context import Environment
from marchproxy.cli.files import read_document
from marchproxy.cli.proposal import propose
from marchproxy.dataplane.control.http1 import HttpError, body_length, parse_head
from marchproxy.dataplane.credentials import jws
from marchproxy.dataplane.dns.query import Unanswered, bare_error, read_query
from marchproxy.dataplane.health.http import BadAnswer, StatusReader
from marchproxy.dataplane.http.http2.frames import Broken, Flood, Frames
from marchproxy.dataplane.proxy.protocol.clienthello import ClientHelloReader
from marchproxy.dataplane.proxy.protocol.detect import ExplicitLayer
from marchproxy.dataplane.proxy.protocol.exchange import Layer, Unfit
from marchproxy.dataplane.proxy.protocol.http_head import parse_head as parse_forwarded
from marchproxy.dataplane.proxy.protocol.preface import PrefaceLayer
from marchproxy.dataplane.proxy.protocol.proxyprotocol import ProxyProtocolReader
from marchproxy.model import conditions, readers
from marchproxy.model.address import parse_address, parse_host_name, parse_prefix
from marchproxy.model.blockfile import read_blocks
from marchproxy.model.endpoint import parse_endpoints
from marchproxy.model.errors import MarchproxyError
from marchproxy.model.ports import parse_ports
from marchproxy.model.snapshot import Snapshot
from marchproxy.store.location import FILE_NAME
from marchproxy.store.store import Store
from tests.cli.console import Console
from tests.dataplane.proxy.protocol.conversation import OPENED, Conversation

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARSERS: tuple[Callable[..., object], ...] = (
    *(parse_address, parse_prefix, parse_host_name, parse_ports, parse_endpoints),
    *(conditions.parse_method, conditions.parse_header_condition, conditions.parse_query_condition),
    *(
        readers.parse_expiry,
        readers.parse_health,
        readers.parse_on_expiry,
        readers.parse_rate,
        readers.parse_claim,
    ),
    *(
        readers.parse_path,
        readers.parse_host_rule,
        readers.parse_share,
        readers.parse_blocked,
        readers.parse_single,
    ),
    *(readers.parse_jwks_url, readers.parse_resolver, readers.parse_nat_address),
)
"""What options and fields of files are read by."""
PIECE = 7
"""Bytes in which what comes by a stream is handed over a second time: the outcome has to be the same."""


def control(data: bytes) -> None:
    """A request to the control socket."""
    with suppress(HttpError):
        body_length(parse_head(data), 1000)


def _converse(make: Callable[[], Layer], data: bytes) -> None:
    outcomes = []
    for size in (max(1, len(data)), PIECE):
        talk = Conversation(make())
        for at in range(0, len(data), size):
            if talk.closed is not None:
                break
            try:
                talk.say(data[at : at + size])
                if talk.asked and not talk.over:
                    talk.hear(OPENED)
            except Unfit:
                # A body that breaks its own framing, behind a request that was carried out.
                assert talk.upstream is not None
                break
        outcomes.append((talk.asked, talk.sent, talk.closed is None))
    assert outcomes[0][0] == outcomes[1][0], "what is asked depends on how it comes"


def explicit(data: bytes) -> None:
    """The explicit proxy: CONNECT, absolute-form HTTP/1, SOCKS."""
    _converse(ExplicitLayer, data)


def preface(data: bytes) -> None:
    """The token before raw TCP."""
    _converse(PrefaceLayer, data)


def _read_twice(reader: Callable[[], ClientHelloReader | ProxyProtocolReader], data: bytes) -> None:
    whole, pieces, last = reader().feed(data), reader(), None
    for at in range(0, len(data), PIECE):
        last = pieces.feed(data[at : at + PIECE])
        if last is not None:
            break
    assert (whole is None) == (last is None), f"{whole} at once, {last} in pieces"


def clienthello(data: bytes) -> None:
    """What TLS begins with."""
    _read_twice(ClientHelloReader, data)


def proxyprotocol(data: bytes) -> None:
    """Versions 1 and 2."""
    _read_twice(ProxyProtocolReader, data)


def forwarded(data: bytes) -> None:
    """The head of an HTTP/1 message."""
    with suppress(Unfit):
        parse_forwarded(data)


def http2(data: bytes) -> None:
    """Frames, before the library has them."""
    for kind in (True, False):
        frames = Frames(preface=kind, resets=10)
        with suppress(Broken, Flood):
            for at in range(0, len(data), 100):
                frames.feed(data[at : at + 100], 1.0)


def dns_query(data: bytes) -> None:
    """A question to the DNS listener."""
    with suppress(Unanswered):
        read_query(data)
    if len(data) >= 12:
        bare_error(data, dns.rcode.FORMERR)


def jwt(data: bytes) -> None:
    """A token: as it is, and with its parts encoded, which is how most mutations of a part survive."""
    texts = [data.decode("latin-1")]
    if data.count(b"\n") == 1:
        head, claims = (base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in data.split(b"\n"))
        texts.append(f"{head}.{claims}.AAAA")
    for text in texts:
        with suppress(jws.NotJwt):
            jws.read(text)


def health(data: bytes) -> None:
    """What a backend answers to a check."""
    with suppress(BadAnswer):
        StatusReader().feed(data)


def parsers(data: bytes) -> None:
    """Values of options and fields; what is accepted is accepted again as it is written then."""
    text = data.decode("utf-8", "replace")
    for parse in PARSERS:
        with suppress(MarchproxyError):
            found = parse(text, field="value")
            if isinstance(found, str):
                assert parse(found, field="value") == found, f"{parse.__name__} is not done with {text!r}"


def blocks(data: bytes) -> None:
    """A file of addresses to be blocked."""
    with suppress(MarchproxyError):
        read_blocks(data.decode("utf-8", "replace").splitlines(), NOW)


def files(data: bytes) -> None:
    """What `apply -f` is given: YAML, JSON, a fleet file."""
    with suppress(MarchproxyError):
        stdin = io.TextIOWrapper(io.BytesIO(data))
        proposal = propose(read_document(Environment(stdin=stdin), "-"), "stdin", None)
        proposal.build(Snapshot())


@cache
def _furnished() -> Path:
    """A store with something in it."""
    folder = Path(tempfile.mkdtemp(prefix="mp-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Store.open(folder, create=True).close()
    return folder


@contextmanager
def _copied() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mp-fuzz-") as name:
        folder = Path(name) / "state"
        shutil.copytree(_furnished(), folder)
        yield folder


def store(data: bytes) -> None:
    """A damaged store: bytes at some places of a sound one are others; behind a zero, its end is gone."""
    with _copied() as folder:
        file = folder / FILE_NAME
        held = bytearray(file.read_bytes())
        for at in range(0, len(data) - 4, 5):
            held[int.from_bytes(data[at : at + 4]) % len(held)] ^= data[at + 4]
        if data[:1] == b"\0" and len(data) > 1:
            del held[len(held) * data[1] // 256 :]
        file.write_bytes(held)
        with suppress(MarchproxyError), Store.open(folder) as opened:
            opened.snapshot()


_NOUNS = (
    "service",
    "mapping",
    "block",
    "limit",
    "cluster",
    "explain",
    "interface",
    "listener",
    "token",
    "revision",
)
_VERBS = ("add", "list", "remove", "show", "set", "issue", "diff", "rollback")
"""None of those that start, end or wait for something."""


def cli(data: bytes) -> None:
    """A command line: noun, verb, words by line. It changes a store at most, and ends with a known code."""
    if len(data) < 2:
        return
    noun = _NOUNS[data[0] % len(_NOUNS)]
    verb = [] if noun == "explain" else [_VERBS[data[1] % len(_VERBS)]]
    words = data[2:].decode("utf-8", "replace").replace("\0", " ").split("\n")
    with _copied() as folder:
        done = Console(folder.parent)(noun, *verb, *words)
    assert done.code in {*range(8), 10}, f"exit code {done.code}"
    assert "Traceback" not in done.err
    assert "InternalError" not in done.err
    assert done.code == 0 or done.err or done.out, "it failed without a word"


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        *(control, explicit, preface, clienthello, proxyprotocol, forwarded, http2, dns_query, jwt, health),
        *(parsers, blocks, files, store, cli),
    )
}
