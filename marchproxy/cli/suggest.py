"""Names that a shell may complete, from the store of this appliance."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from marchproxy.model.errors import MarchproxyError
from marchproxy.model.names import ALL, COLLECTION_PREFIX, DEFAULT_CLUSTER, EXTERNAL

if TYPE_CHECKING:
    from marchproxy.model.snapshot import Cluster, Snapshot


def clusters(context: typer.Context, incomplete: str) -> list[str]:
    """Names of clusters."""
    return _names(context, lambda snapshot: (cluster.name for cluster in snapshot.clusters))


def services(context: typer.Context, incomplete: str) -> list[str]:
    """Names of services of the cluster that the command line names."""
    return _names(context, lambda snapshot: (item.name for item in _cluster(context, snapshot).services))


def mappings(context: typer.Context, incomplete: str) -> list[str]:
    """Names of mappings."""
    return _names(context, lambda snapshot: (item.name for item in _cluster(context, snapshot).mappings))


def certificates(context: typer.Context, incomplete: str) -> list[str]:
    """Names of certificates of the cluster that the command line names."""
    from marchproxy.cli.intent import opened

    try:
        with opened(context.obj, read_only=True) as store:
            return [each.name for each in store.certificates.every(_cluster_name(context))]
    except (MarchproxyError, OSError):
        return []


def interfaces(context: typer.Context, incomplete: str) -> list[str]:
    """Names of configured interfaces."""
    return _names(context, lambda snapshot: (item.name for item in snapshot.interfaces))


def limits(context: typer.Context, incomplete: str) -> list[str]:
    """Names of rate limits."""
    return _names(context, lambda snapshot: (item.name for item in snapshot.limits))


def blocks(context: typer.Context, incomplete: str) -> list[str]:
    """Blocked entries and block lists."""
    return _names(
        context,
        lambda snapshot: (
            *(block.name for block in snapshot.blocks),
            *(item.name for item in snapshot.block_lists),
        ),
    )


def listeners(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the appliance's own listeners."""
    return _names(context, lambda snapshot: (item.name for item in snapshot.listeners))


def listener_kinds(context: typer.Context, incomplete: str) -> list[str]:
    """What the appliance's own listeners can speak."""
    from marchproxy.model.appliance import ListenerKind

    return list(ListenerKind)


def devices(context: typer.Context, incomplete: str) -> list[str]:
    """Network devices of this machine that face a network."""
    from socket import if_nameindex

    from marchproxy.model.names import LOOPBACK

    return [name for _, name in if_nameindex() if name != LOOPBACK]


def references(context: typer.Context, incomplete: str) -> list[str]:
    """What `--from` and `--to` take; behind a comma, the next entry of the list."""
    done, comma, _ = incomplete.rpartition(",")
    return [done + comma + name for name in _names(context, lambda snapshot: _references(context, snapshot))]


def _references(context: typer.Context, snapshot: "Snapshot") -> Iterator[str]:
    among = _cluster(context, snapshot).services
    yield from (service.name for service in among)
    yield from sorted({COLLECTION_PREFIX + service.collection for service in among if service.collection})
    yield from (EXTERNAL, ALL)


def _cluster(context: typer.Context, snapshot: "Snapshot") -> "Cluster":
    from marchproxy.model.snapshot import Cluster

    name = _cluster_name(context)
    return snapshot.cluster(name) or Cluster(name)


def _cluster_name(context: typer.Context) -> str:
    return context.params.get("cluster") or DEFAULT_CLUSTER


def _names(context: typer.Context, choose: Callable[["Snapshot"], Iterable[str]]) -> list[str]:
    """Names from the store. A shell has no place for an error: then there is nothing to offer."""
    from marchproxy.cli.intent import read

    try:
        return list(choose(read(context.obj)))
    except (MarchproxyError, OSError):
        return []
