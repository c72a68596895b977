"""`marchproxy block`: what nothing may come from or go to."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import batched, islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marchproxy.cli import intent, suggest
from marchproxy.cli.context import Environment
from marchproxy.cli.errors import ExitCode, WrongUsage
from marchproxy.cli.framework import environment_of, noun, verb
from marchproxy.cli.options import TABLE, ForceOption, OutputOption, YesOption
from marchproxy.cli.output import Output, show_lines, show_one, show_rows, to_yaml
from marchproxy.cli.rows import row
from marchproxy.cli.table import Columns
from marchproxy.client import edits
from marchproxy.client.units import parse_duration
from marchproxy.model.appliance import Block, BlockList
from marchproxy.model.change import Kind
from marchproxy.model.documents import Document, read_entity, write_field
from marchproxy.model.errors import NotFound
from marchproxy.model.snapshot import Snapshot

if TYPE_CHECKING:
    from marchproxy.model.blocklist import BlockContents
    from marchproxy.policy.blocks import Blocks
    from marchproxy.store.store import Store

app = noun("Manage blocks: addresses and names that nothing may come from or go to")

SHOWN = 100
"""Entries of a list in a table, unless --limit says another number."""
_AT_ONCE = 10_000
COLUMNS: Columns = {
    "NAME": "name",
    "KIND": "kind",
    "ENTRIES": "entries",
    "REASON": "reason",
    "ORIGIN": "origin",
    "EXPIRES": "expires",
}
ENTRY_COLUMNS: Columns = {"NAME": "name", "REASON": "reason", "EXPIRES": "expires"}

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why it is blocked")]
TtlOption = Annotated[
    str, typer.Option("--ttl", metavar="T", help="Unblock it by itself after 30s, 10m, 2h, 7d")
]
Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A blocked entry or a list", autocompletion=suggest.blocks)
]


@verb(
    app,
    "add",
    "marchproxy block add 203.0.113.0/24 --reason 'scans us' --ttl 7d",
    "marchproxy block add '*.ads.example'",
)
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ENTRY", help="Address, prefix, host name or *.NAME")],
    reason: ReasonOption = "",
    ttl: TtlOption = "",
    force: ForceOption = False,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Add a block of an address, a prefix or a host name

    Nothing comes from it or goes to it any more, whatever mappings say; what runs already is cut. The
    addresses of a host name follow DNS, and the appliance's DNS listener does not answer for it. Management
    ports of the appliance stay reachable.
    """
    from marchproxy.store.revision import current_author

    environment = environment_of(context)
    document = {"name": name, "reason": reason, "origin": current_author(), "expires": _ends(ttl)}
    block: Any = read_entity(Block, {key: value for key, value in document.items() if value})
    if not force:
        _refuse_covering(environment, (block,), (), {})
    code = intent.write(
        environment, f"block {block.name}", lambda snapshot: edits.put(snapshot, Kind.BLOCK, "", block)
    )
    if output is not Output.TABLE:
        show_one(environment, output, row(block))
    return code


@verb(
    app,
    "import",
    "marchproxy block import drop.txt --reason 'Spamhaus DROP'",
    "zcat bad.csv.gz | marchproxy block import - --name bad --ttl 2d",
)
def import_list(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file; - is stdin")],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Its name; that of the file unless given")
    ] = "",
    reason: ReasonOption = "",
    ttl: TtlOption = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Import nothing of a file with a bad line")
    ] = False,
    force: ForceOption = False,
    output: OutputOption = TABLE,
) -> ExitCode:
    """Add a list: a block of everything that a file names

    Plain text, CSV (address, reason, expires), ipset save and nftables sets are read, with IPv4, IPv6,
    prefixes, ranges and host names; # ; and // begin comments. A list of the same name is replaced as a
    whole, without a moment in between. Bad lines are named and left out: one slip in a feed must not leave
    everything else in it unblocked. With --strict a file with a bad line changes nothing.
    """
    from marchproxy.cli.blockfiles import read_file
    from marchproxy.model.blocklist import name_of

    environment = environment_of(context)
    reading = read_file(environment, file, strict=strict)
    packed = reading.contents.pack()
    document = {
        "name": name or _name_from(file),
        "sha256": name_of(packed),
        "entries": len(reading.contents),
        "origin": "stdin" if file == "-" else PurePath(file).name,
        "reason": reason,
        "expires": _ends(ttl),
    }
    item: Any = read_entity(BlockList, {key: value for key, value in document.items() if value != ""})
    if not force:
        _refuse_covering(environment, (), (item,), {item.sha256: reading.contents})
    with intent.opened(environment) as store:
        message = f"import block list {item.name}"
        intent.commit(environment, store, message, lambda held: _with_list(held, item), contents=[packed])
    code = intent.announce(environment)
    left_out = {"read": reading.read, "bad_lines": reading.bad_lines, "expired": reading.expired}
    if output is Output.TABLE:
        environment.note(f"{item.name}: {item.entries} entries of {reading.read} read")
    else:
        show_one(environment, output, row(item) | left_out)
    return code


@verb(
    app,
    "list",
    "marchproxy block list",
    "marchproxy block list --list drop --limit 20",
    "marchproxy block list --list drop --output json | jq -r '.[].name'",
)
def list_all(
    context: typer.Context,
    name: Annotated[str, typer.Option("--list", metavar="NAME", help="Show the entries of this list")] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=0, help="Show at most so many entries")
    ] = None,
    output: OutputOption = TABLE,
) -> None:
    """List what is blocked

    Single blocks first, then imported lists. Of a list, a table shows the first 100 entries, JSON and YAML
    all of them.
    """
    environment = environment_of(context)
    if not name:
        snapshot = intent.read(environment)
        rows = [{**row(block), "kind": "entry", "entries": 1} for block in snapshot.blocks]
        rows += [{**row(item), "kind": "list"} for item in snapshot.block_lists]
        show_rows(environment, output, rows[:limit], COLUMNS)
        return
    with intent.opened(environment, read_only=True) as store:
        item: Any = edits.find(store.snapshot(), Kind.BLOCK_LIST, "", name)
        contents = store.block_contents(item.sha256)
    entries = islice(_entries(contents), limit)
    if output is Output.TABLE:
        show_rows(
            environment, output, list(islice(entries, SHOWN if limit is None else limit)), ENTRY_COLUMNS
        )
        hidden = len(contents) - (SHOWN if limit is None else limit)
        if hidden > 0:
            environment.note(f"{hidden} more: --limit shows them, --output json has all")
    else:
        show_lines(environment, _streamed(entries, output))


@verb(app, "remove", "marchproxy block remove 203.0.113.0/24 --yes", "marchproxy block remove drop --yes")
def remove(context: typer.Context, name: Name, yes: YesOption = False) -> ExitCode:
    """Remove a block, or a whole list

    It asks first on a terminal; a script says --yes. Of entry and list with one name it means the entry.
    """
    environment = environment_of(context)
    kind, found = _find(intent.read(environment), name)
    message = f"remove {kind.label} {found}"
    intent.confirm(environment, message, yes)
    return intent.write(environment, message, lambda snapshot: edits.drop(snapshot, kind, "", found))


@verb(app, "check", "marchproxy block check 203.0.113.7", "marchproxy block check www.ads.example")
def check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ADDR|NAME", help="Address or host name to ask about")],
    output: OutputOption = TABLE,
) -> ExitCode:
    """Show whether an address or a host name is blocked, and by what

    Exit code 10: it is blocked, 0: it is not. The store answers; which addresses a blocked host name has
    right now only the running daemon knows, and explain asks it.
    """
    from marchproxy.model.address import HostName, is_single, parse_address
    from marchproxy.model.errors import InvalidValue

    environment = environment_of(context)
    asked = parse_address(name)
    if not isinstance(asked, HostName) and not is_single(asked):
        raise InvalidValue("address", name, "one address or host name, not a prefix")
    with intent.opened(environment, read_only=True) as store:
        snapshot = store.snapshot()
        blocks = _compiled(snapshot, store)
    if isinstance(asked, HostName):
        owner = blocks.find_name(asked.name)
    else:
        owner = blocks.find(asked.network_address)
    kind, _, by = owner.partition(":")
    answer: Document = {"name": name, "blocked": bool(owner), "by": by, "kind": _KINDS.get(kind, "")}
    answer |= _details(snapshot, kind, by)
    if output is Output.TABLE:
        show_lines(environment, [_sentence(environment, answer)])
    else:
        show_one(environment, output, answer)
    return ExitCode.DENIED if owner else ExitCode.DONE


_KINDS = {"block": "entry", "block-list": "list"}


def _ends(ttl: str) -> str:
    if not ttl:
        return ""
    seconds = parse_duration(ttl, field="ttl")
    if not seconds:
        raise WrongUsage("--ttl 0 would block nothing", hint="a duration such as 30s, 10m, 2h or 7d")
    return str(write_field("expires", datetime.now(UTC) + timedelta(seconds=seconds)))


def _name_from(file: str) -> str:
    if file == "-":
        raise WrongUsage("a list from stdin has no name of its own", hint="give it one with --name")
    return PurePath(file).name.partition(".")[0]


def _refuse_covering(
    environment: Environment,
    blocks: tuple[Block, ...],
    lists: tuple[BlockList, ...],
    contents: "dict[str, BlockContents]",
) -> None:
    from marchproxy.client.covered import refuse_new_blocks

    empty = Snapshot()
    wanted = replace(empty, blocks=blocks, block_lists=lists)
    refuse_new_blocks(environment, empty, wanted, lambda _: contents)


def _compiled(snapshot: Snapshot, store: "Store") -> "Blocks":
    from marchproxy.policy.blocks import BlockMemo, compile_blocks

    contents, now = store.contents_of(snapshot), datetime.now(UTC)
    return compile_blocks(snapshot.blocks, snapshot.block_lists, contents, {}, now, BlockMemo()).blocks


def _with_list(snapshot: Snapshot, item: BlockList) -> Snapshot:
    if any(held.name == item.name for held in snapshot.block_lists):
        return edits.swap(snapshot, Kind.BLOCK_LIST, "", item)
    return edits.put(snapshot, Kind.BLOCK_LIST, "", item)


def _find(snapshot: Snapshot, name: str) -> tuple[Kind, str]:
    """What a name means: an entry however it is written, or a list."""
    from marchproxy.model.address import format_address, parse_address
    from marchproxy.model.errors import InvalidValue

    try:
        canonical = format_address(parse_address(name))
    except InvalidValue:
        canonical = name
    if any(block.name == canonical for block in snapshot.blocks):
        return Kind.BLOCK, canonical
    if any(item.name == name for item in snapshot.block_lists):
        return Kind.BLOCK_LIST, name
    raise NotFound("block", name, hint="marchproxy block list shows what is blocked")


def _entries(contents: "BlockContents") -> Iterator[Document]:
    for text, note in contents.texts():
        yield {"name": text, "reason": note.reason, "expires": write_field("expires", note.expires)}


def _streamed(rows: Iterable[Document], output: Output) -> Iterator[str]:
    """JSON or YAML of rows that are never all in memory."""
    if output is Output.YAML:
        empty = True
        for some in batched(rows, _AT_ONCE):
            empty = False
            yield to_yaml(list(some)).rstrip("\n")
        if empty:
            yield "[]"
        return
    last = ""
    for each in rows:
        yield f"{last}," if last else "["
        last = "  " + json.dumps(each, ensure_ascii=False)
    yield from (last, "]") if last else ("[]",)


def _details(snapshot: Snapshot, kind: str, name: str) -> Document:
    among: tuple[Block | BlockList, ...] = snapshot.blocks if kind == "block" else snapshot.block_lists
    found = next((each for each in among if each.name == name), None) if kind else None
    return {
        "reason": found.reason if found else "",
        "expires": write_field("expires", found.expires) if found else None,
    }


def _sentence(environment: Environment, answer: Document) -> str:
    if not answer["blocked"]:
        return f"{answer['name']} is {environment.colour('not blocked', 'green')}"
    what = "list " if answer["kind"] == "list" else ""
    why = f": {answer['reason']}" if answer["reason"] else ""
    until = f", until {answer['expires']}" if answer["expires"] else ""
    return f"{answer['name']} is {environment.colour('blocked', 'red')} by {what}{answer['by']}{why}{until}"
