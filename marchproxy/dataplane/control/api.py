"""Version 1 of the control API: one function for each route. docs/CONTROL_SOCKET.md is its contract."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, Protocol

from marchproxy.dataplane.agreement import Explanation
from marchproxy.dataplane.capture.packet import Feed
from marchproxy.dataplane.capture.session import stream
from marchproxy.dataplane.capture.wish import Wish, read_wish
from marchproxy.dataplane.control import documents, filters
from marchproxy.dataplane.control.documents import Document
from marchproxy.dataplane.control.http1 import HttpError, Request, Response
from marchproxy.dataplane.control.question import FIELDS, read_question
from marchproxy.dataplane.control.server import as_http
from marchproxy.dataplane.credentials.book import Verified
from marchproxy.dataplane.events import EventHub, Subscription
from marchproxy.dataplane.flowquery import FlowFilter, FlowPage, FlowQuestion
from marchproxy.dataplane.learning import Learning, learned_document
from marchproxy.dataplane.logring import LogQuestion, LogRing, Said
from marchproxy.dataplane.outbox import Lost
from marchproxy.dataplane.preview import Preview
from marchproxy.dataplane.records import EventKind
from marchproxy.dataplane.status import Applied, Status
from marchproxy.dataplane.toplists import TopList, TopOrder, TopQuestion
from marchproxy.model.change import Change, Kind
from marchproxy.model.errors import InvalidValue, MarchproxyError
from marchproxy.model.presented import MAX_SECRET
from marchproxy.model.reason import Reason
from marchproxy.policy.evaluate import Query
from marchproxy.policy.plan import Finding

MOST_ROWS = 100_000
"""Rows of one answer. Where more are asked for and there, it says `X-MarchProxy-Truncated: 1`."""
_TOP_ROWS = 20
_PCAPNG = "application/x-pcapng"
_ALL_KINDS = "all"
_ROWS_AT_ONCE = 200
_FACTS = frozenset({"/v1/status", "/v1/flows", "/v1/top", "/v1/logs", "/v1/learned"})
"""Where it is told what has happened."""
_LIST_PARAMETERS = frozenset({"limit", "offset", "sort", "denied"})
_OPTIONAL = (*FIELDS, "token")
_FIRST_KINDS = (
    EventKind.FLOW_START,
    EventKind.FLOW_END,
    EventKind.DENIED,
    EventKind.AUDITED,
    EventKind.BACKEND,
)
"""What a client that names no kinds is told of: it may know no others."""


class Appliance(Protocol):
    """What the API asks of the daemon."""

    @property
    def events(self) -> EventHub:
        """Events, recent refusals, and the names of the plan that is carried out."""

    @property
    def learning(self) -> Learning:
        """What audit has let through."""

    @property
    def logs(self) -> LogRing:
        """What the daemon has said about itself."""

    async def settle(self) -> None:
        """Returns when what its processes know by now is known here, or after a moment."""

    def status(self) -> Status:
        """The daemon now."""

    def findings(self) -> Sequence[Finding]:
        """What the compiler said about the plan that is carried out."""

    async def page(self, question: FlowQuestion) -> FlowPage:
        """Live flows as asked for, with their services."""

    async def top(self, of: TopQuestion, order: TopOrder, limit: int) -> TopList:
        """The first `limit` rows of who carries, or is refused, most; see `TopLists.list`."""

    async def cut(self, ids: frozenset[int], tokens: frozenset[str]) -> tuple[frozenset[int], int]:
        """End flows by their ids, and tunnels by the credential that opened them, as `Verified.token` names
        it.

        Returns the ids that there were, and how many tunnels.
        """

    async def preview(self, sha256: str, changes: Sequence[Change]) -> Preview:
        """Which running flows `changes` to the snapshot of `sha256` would cut. Raises `MarchproxyError`."""

    async def explain(self, query: Query) -> Explanation:
        """What policy says about a new flow, and what the programs in the kernel do."""

    def judge(self, secret: str) -> Verified | Reason:
        """Whose credential it is, or why it is none."""

    async def capture(self, wish: Wish) -> Feed:
        """Begin to capture packets; `close` of the feed must follow. Raises `MarchproxyError`."""

    async def subscribe(self, kinds: Iterable[EventKind], wanted: FlowFilter) -> Subscription:
        """Events of these kinds that `wanted` holds for, none missed from the return on; `unsubscribe` must
        follow.
        """

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscriber."""

    async def reload(self) -> Applied:
        """Carry out the store's head. Raises `MarchproxyError` and leaves what was there."""


class ControlApi:
    """Routes requests to the functions below."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self._routes: dict[str, dict[str, Callable[[Request], Awaitable[Response]]]] = {
            "/v1/status": {"GET": self._status},
            "/v1/flows": {"GET": self._flows},
            "/v1/flows/cut": {"POST": self._cut},
            "/v1/top": {"GET": self._top},
            "/v1/events": {"GET": self._events},
            "/v1/logs": {"GET": self._logs},
            "/v1/capture": {"GET": self._capture},
            "/v1/reload": {"POST": self._reload},
            "/v1/preview": {"POST": self._preview},
            "/v1/explain": {"POST": self._explain},
            "/v1/learned": {"GET": self._learned, "DELETE": self._forget},
        }

    async def handle(self, request: Request) -> Response:
        """Answer one request. Raises `HttpError` and `MarchproxyError`, which the server turns into JSON."""
        methods = self._routes.get(request.path)
        if methods is None:
            hint = "this daemon speaks " + ", ".join(sorted(self._routes))
            raise HttpError(HTTPStatus.NOT_FOUND, "NotFound", "there is nothing at this path", hint=hint)
        if request.method not in methods:
            error = HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", "not with this method")
            error.headers["Allow"] = ", ".join(methods)
            raise error
        if request.path in _FACTS:
            # Whoever asks right after something was refused is to find it.
            await self._appliance.settle()
        return await methods[request.method](request)

    async def _status(self, request: Request) -> Response:
        _take_nothing(request)
        return _json(documents.status_document(self._appliance.status()))

    async def _flows(self, request: Request) -> Response:
        query = request.query
        first, limit = filters.read_offset(query), filters.read_limit(query)
        wanted, order = filters.read_filter(query, beside=_LIST_PARAMETERS), filters.read_order(query)
        count = min(limit, MOST_ROWS)
        if filters.read_flag(query, "denied"):
            if order:
                raise InvalidValue("sort", query["sort"], "nothing beside denied: what is newest comes first")
            found = [each for each in self._appliance.events.refusals() if wanted.matches(each)]
            refused = found[first : first + count]
            return _rows(map(documents.decision_document, refused), len(found), first, count, limit)
        page = await self._appliance.page(FlowQuestion(wanted, order, first, count))
        return _rows(map(documents.flow_document, page.flows), page.total, first, count, limit)

    async def _top(self, request: Request) -> Response:
        filters.expect_only(request.query, frozenset({"by", "sort", "limit", "denied"}))
        of, order = filters.read_grouping(request.query)
        limit = min(filters.read_limit(request.query, _TOP_ROWS), MOST_ROWS)
        return _json(documents.top_document(await self._appliance.top(of, order, limit)))

    async def _cut(self, request: Request) -> Response:
        _take_nothing(request)
        ids, tokens = read_cut(request.body)
        found, count = await self._appliance.cut(ids, tokens)
        return _json({"cut": len(found) + count, "unknown": sorted(ids - found)})

    async def _events(self, request: Request) -> Response:
        wanted = filters.read_filter(request.query, beside=frozenset({"kind"}))
        kinds = _read_kinds(request.query.get("kind"))
        return Response(self._event_lines(kinds, wanted), content_type="application/x-ndjson")

    async def _event_lines(self, kinds: Iterable[EventKind], wanted: FlowFilter) -> AsyncGenerator[bytes]:
        subscription = await self._appliance.subscribe(kinds, wanted)
        try:
            # An empty line opens the stream: from here on nothing is missed.
            yield b"\n"
            async for batch in subscription.batches():
                yield b"".join(_line(documents.event_document(event)) for event in batch)
        finally:
            self._appliance.unsubscribe(subscription)

    async def _logs(self, request: Request) -> Response:
        question, limit = filters.read_log_question(request.query), filters.read_limit(request.query)
        if filters.read_flag(request.query, "follow"):
            lines = self._log_lines(question, limit)
            return Response(lines, content_type="application/x-ndjson")
        found = self._appliance.logs.find(question)
        return _rows(map(documents.log_document, found[-limit:]), len(found), 0, limit, limit)

    async def _log_lines(self, question: LogQuestion, limit: int) -> AsyncGenerator[bytes]:
        async with aclosing(self._appliance.logs.follow(question, limit)) as batches:
            async for batch in batches:
                # The first is what was kept, and may be empty: the empty line opens the stream all the same.
                yield b"".join(map(_log_line, batch)) or b"\n"

    async def _capture(self, request: Request) -> Response:
        wish = read_wish(request.query)
        if request.head_only:
            # Beginning would keep others from it, and cost every packet something.
            return Response(b"", content_type=_PCAPNG)
        feed = await self._appliance.capture(wish)
        interfaces = [state.name for state in self._appliance.status().interfaces if state.attached]
        about = "&".join(f"{name}={value}" for name, value in request.query.items())
        pieces = stream(feed, wish, interfaces, about)
        return Response(pieces, content_type=_PCAPNG)

    async def _reload(self, request: Request) -> Response:
        _take_nothing(request)
        _read_object(request.body, ())
        try:
            applied = await self._appliance.reload()
        except MarchproxyError as error:
            raise as_http(error, HTTPStatus.CONFLICT) from error
        return _json(
            {
                "revision": applied.number,
                "sha256": applied.sha256,
                "applied_ms": documents.milliseconds(applied.took),
                "findings": [documents.finding_document(item) for item in self._appliance.findings()],
            }
        )

    async def _preview(self, request: Request) -> Response:
        _take_nothing(request)
        # Elsewhere: the changes of a whole site are megabytes, and nothing is answered while they are read.
        sha256, changes = await asyncio.to_thread(read_preview, request.body)
        return _json(documents.preview_document(await self._appliance.preview(sha256, changes)))

    async def _learned(self, request: Request) -> Response:
        _take_nothing(request)
        return _json(learned_document(self._appliance.learning))

    async def _forget(self, request: Request) -> Response:
        _take_nothing(request)
        return _json({"forgotten": self._appliance.learning.forget()})

    async def _explain(self, request: Request) -> Response:
        _take_nothing(request)
        body = _read_object(request.body, ("source", "destination", "protocol"), optional=_OPTIONAL)
        found = await self._appliance.explain(read_question(body))
        document = documents.explanation_document(found)
        if "token" in body:
            document = documents.with_token(document, found.answer, self._judge(body["token"]))
        status = self._appliance.status()
        return _json({**document, "tier": status.tier, "revision": status.applied.number})

    def _judge(self, token: object) -> Verified | Reason:
        # Not in the error: what is no token may be part of one.
        if not isinstance(token, str) or not 0 < len(token) <= MAX_SECRET:
            raise InvalidValue("token", "…", f"a text of 1 to {MAX_SECRET} characters")
        return self._appliance.judge(token)


def read_cut(body: bytes) -> tuple[frozenset[int], frozenset[str]]:
    """What to end: `ids` of flows, `tokens` by which tunnels were opened, or both. Raises `InvalidValue`."""
    document = _read_object(body, (), optional=("ids", "tokens"))
    ids, tokens = document.get("ids", []), document.get("tokens", [])
    if not isinstance(ids, list) or not all(type(each) is int and each > 0 for each in ids):
        raise InvalidValue("ids", ids, "a list of numbers from 1")
    if not isinstance(tokens, list) or not all(isinstance(each, str) for each in tokens):
        raise InvalidValue("tokens", tokens, "a list of texts")
    if not ids and not tokens:
        raise InvalidValue("body", document, "ids or tokens, at least one")
    return frozenset(ids), frozenset(tokens)


def read_preview(body: bytes) -> tuple[str, Sequence[Change]]:
    """A proposal: `sha256` of the snapshot it starts from, and `changes` as `apply --dry-run` shows them."""
    document = _read_object(body, ("sha256", "changes"))
    if not isinstance(document["changes"], list):
        raise InvalidValue("changes", document["changes"], "a list")
    return str(document["sha256"]), [_read_change(item) for item in document["changes"]]


def _read_change(item: Any) -> Change:
    keys = {"kind", "cluster", "name", "before", "after"}
    if not isinstance(item, dict) or item.keys() - {"action"} != keys or item["kind"] not in list(Kind):
        raise InvalidValue("change", item, "an object with " + ", ".join(sorted(keys)))
    for key in ("before", "after"):
        if not isinstance(item[key], dict | None):
            raise InvalidValue(key, item[key], "an object or null")
    kind = Kind(item["kind"])
    return Change(kind, str(item["cluster"]), str(item["name"]), item["before"], item["after"])


def _take_nothing(request: Request) -> None:
    if request.query:
        raise InvalidValue("parameter", min(request.query), "none: this path takes no parameters")


def _read_kinds(text: str | None) -> Sequence[EventKind]:
    if text is None:
        return _FIRST_KINDS
    if text == _ALL_KINDS:
        return tuple(EventKind)
    try:
        return [EventKind(part) for part in text.split(",")]
    except ValueError:
        expected = f"{_ALL_KINDS}, or a list of " + ", ".join(EventKind)
        raise InvalidValue("kind", text, expected) from None


def _read_object(body: bytes, required: Sequence[str], *, optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """The body as a JSON object with the `required` members, maybe `optional` ones, and no others.

    An empty body is an empty object.
    """
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise InvalidValue("body", body[:60].decode("utf-8", "replace"), "JSON") from None
    if not isinstance(document, dict):
        raise InvalidValue("body", document, "a JSON object")
    missing = [name for name in required if name not in document]
    unknown = sorted(set(document) - {*required, *optional})
    if missing or unknown:
        allowed = ", ".join((*required, *optional))
        expected = f"an object with {allowed}" if allowed else "an empty object"
        raise InvalidValue("body", missing[0] if missing else unknown[0], expected)
    return document


def _json(document: Document) -> Response:
    return Response(json.dumps(document).encode() + b"\n")


def _line(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _log_line(said: Said | Lost) -> bytes:
    if isinstance(said, Lost):
        return _line(documents.lost_document(said))
    return _line({"kind": "log", **documents.log_document(said)})


def _rows(rows: Iterable[Document], total: int, first: int, count: int, limit: int) -> Response:
    headers = {"X-MarchProxy-Total": str(total)}
    if count < limit and first + count < total:
        headers["X-MarchProxy-Truncated"] = "1"
    return Response(_array(rows), headers=headers)


async def _array(rows: Iterable[Document]) -> AsyncGenerator[bytes]:
    """A JSON array in pieces, so that a hundred thousand rows neither pile up nor hold up the loop."""
    piece: list[str] = []
    separator = "["
    for row in rows:
        piece.append(separator + json.dumps(row))
        separator = ",\n"
        if len(piece) == _ROWS_AT_ONCE:
            yield "".join(piece).encode()
            piece.clear()
    yield ("".join(piece) + ("]\n" if separator != "[" else "[]\n")).encode()
