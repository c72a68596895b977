"""What a block would cut that the operator needs: the way they are connected, and the appliance itself."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from marchproxy.client.appliance import Appliance
from marchproxy.client.session import ssh_session
from marchproxy.model.address import IPAddress
from marchproxy.model.errors import Conflict
from marchproxy.model.snapshot import Snapshot
from marchproxy.policy.blocks import BlockMemo, Blocks, Contents, compile_blocks

if TYPE_CHECKING:
    from marchproxy.store.store import Store

_PROC = Path("/proc/net")
_SHOWN = 5


def guard_way(appliance: Appliance, store: "Store", before: Snapshot, after: Snapshot) -> None:
    """Raise `Conflict` where blocks that `after` has and `before` had not cover the operator's way."""
    if (after.blocks, after.block_lists) != (before.blocks, before.block_lists):
        refuse_new_blocks(appliance, before, after, store.contents_of)


def refuse_new_blocks(
    appliance: Appliance, before: Snapshot, after: Snapshot, contents_of: Callable[[Snapshot], Contents]
) -> None:
    """`refuse_covering` for what `after` blocks and `before` did not; a list with other contents is new.

    `contents_of`: what the lists of a snapshot hold.
    """
    known = {*before.blocks, *before.block_lists}
    blocks = tuple([block for block in after.blocks if block not in known])
    lists = tuple([item for item in after.block_lists if item not in known])
    if blocks or lists:
        contents = contents_of(replace(Snapshot(), blocks=blocks, block_lists=lists))
        memo = compile_blocks(blocks, lists, contents, {}, datetime.now(UTC), BlockMemo())
        refuse_covering(appliance, memo.blocks)


def refuse_covering(appliance: Appliance, blocks: Blocks, *, proc: Path = _PROC) -> None:
    """Raise `Conflict` where `blocks` cover the client of this SSH session, a local address or loopback."""
    cut = []
    for address, what in management_path(appliance, proc):
        owner = blocks.find(address)
        if owner:
            cut.append(f"{address} ({what}, by {owner.partition(':')[2]})")
    if cut:
        more = f" and {len(cut) - _SHOWN} more" if len(cut) > _SHOWN else ""
        raise Conflict(
            f"this would cut {', '.join(cut[:_SHOWN])}{more}",
            hint="leave it out, or say --force; management ports of the appliance stay reachable anyway",
        )


def management_path(appliance: Appliance, proc: Path = _PROC) -> Iterator[tuple[IPAddress, str]]:
    """Addresses that the operator cannot do without, and what each is."""
    session = ssh_session(appliance)
    if session is not None:
        yield session.client, "the client of this SSH session"
    seen: set[IPAddress] = {IPv4Address("127.0.0.1"), IPv6Address("::1")}
    for loopback in sorted(seen, key=str):
        yield loopback, "loopback"
    for address in local_addresses(proc):
        if address not in seen and not address.is_loopback:
            seen.add(address)
            yield address, "an address of the appliance"


def local_addresses(proc: Path = _PROC) -> Iterator[IPAddress]:
    """Addresses of this host, from what the kernel prints: netlink's library takes a tenth of a second."""
    yield from _local_v4(_read(proc / "fib_trie"))
    for line in _read(proc / "if_inet6"):
        yield IPv6Address(bytes.fromhex(line.split()[0]))


def _local_v4(lines: list[str]) -> Iterator[IPAddress]:
    """In the trie an address stands on the line before `/32 host LOCAL`."""
    last = ""
    for line in lines:
        text = line.strip()
        if text == "/32 host LOCAL":
            yield IPv4Address(last)
        elif text.startswith("|-- "):
            last = text.removeprefix("|-- ")


def _read(path: Path) -> list[str]:
    """Its lines; none where the kernel has no such family."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
