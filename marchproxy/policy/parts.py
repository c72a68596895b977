"""What the mappings of a cluster contribute, compiled anew only where something changed."""

from collections.abc import Iterable, Iterator
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, replace
from datetime import datetime

from marchproxy.model.entities import Mapping
from marchproxy.policy.directory import Delta, Directory, compare, empty_directory
from marchproxy.policy.pools import PoolCache
from marchproxy.policy.rules import Part, Terms, compile_mapping


@dataclass(frozen=True, slots=True)
class ClusterMemo:
    """A cluster as it was compiled."""

    directory: Directory
    parts: MappingABC[str, Part]
    """By plain mapping name, without expired ones."""
    terms: Terms


def nothing_compiled(cluster: str) -> ClusterMemo:
    """What there is of a cluster before its first compilation."""
    return ClusterMemo(empty_directory(cluster), {}, Terms())


def compile_parts(
    mappings: Iterable[Mapping],
    directory: Directory,
    terms: Terms,
    old: ClusterMemo,
    pools: PoolCache,
    now: datetime,
) -> tuple[dict[str, Part], list[Part]]:
    """The parts by name, without expired mappings, and those among them that are not in `old`."""
    delta = compare(old.directory, directory)
    agreed = terms == old.terms
    same = agreed and old.directory is directory
    parts = {}
    new = []
    for mapping in mappings:
        if mapping.expires is not None and mapping.expires <= now:
            continue
        part = old.parts.get(mapping.name)
        # Mostly ten thousand of them are the same, and the call alone would cost more than to see that.
        untouched = same and part is not None and part.mapping is mapping
        if part is None or not (untouched or (agreed and _still_true(part, mapping, delta))):
            part = _keep(part, compile_mapping(mapping, directory, pools, terms))
            new.append(part)
        parts[mapping.name] = part
    return parts, new


def replaced(old: MappingABC[str, Part], parts: MappingABC[str, Part], new: Iterable[Part]) -> Iterator[Part]:
    """The parts of `old` in whose place `new` ones came, and those that are gone."""
    kept = len(parts)
    for part in new:
        held = old.get(part.mapping.name)
        if held is None:
            kept -= 1
        else:
            yield held
    if kept != len(old):
        yield from (part for name, part in old.items() if name not in parts)


def _still_true(part: Part, mapping: Mapping, delta: Delta) -> bool:
    """Whether `part` is what compiling `mapping` would give.

    Of a source only the name is in the rules, and of a destination too if it is not a backend.
    """
    meant = delta.demands if mapping.listen is None else delta.contents
    return (
        (part.mapping is mapping or part.mapping == mapping)
        and meant.isdisjoint(mapping.destinations)
        and (mapping.mirrored is None or mapping.mirrored[0] not in meant)
        and delta.members.isdisjoint(mapping.sources)
    )


def _keep(old: Part | None, new: Part) -> Part:
    """`new`, with the very objects of `old` where they are equal."""
    if old is None:
        return new
    return replace(
        new,
        rules=_same(old.rules, new.rules),
        joining=_same(old.joining, new.joining),
        transit=_same(old.transit, new.transit),
        restriction=old.restriction if _restricts_alike(old, new) else new.restriction,
    )


def _restricts_alike(old: Part, new: Part) -> bool:
    held, wanted = old.restriction, new.restriction
    if held is None or wanted is None or old.mapping != new.mapping:
        return False
    return held.services == wanted.services and held.rules == wanted.rules


def _same[T](old: T, new: T) -> T:
    return old if old == new else new
