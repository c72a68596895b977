"""Classes of addresses as the programs look them up: in pages, and in a trie what no page tells.

A trie of ten thousand prefixes is 15 nodes deep, each of them memory that no cache holds. Prefixes within a
page, of 120 bits and more (/24 and longer of IPv4), are found by one look into a hash instead. Wider ones,
and those of a page that is too diverse or finds no room, are in the trie.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby
from struct import Struct

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Place, Tables

type Run = tuple[int, int]
"""The last byte of its first address, and a class."""

_SIZE = 256
_PACKED = Struct(f"={layouts.PAGE_RUNS}I{layouts.PAGE_RUNS}B")


class AddressClasses:
    """Which class each prefix is of. Pages follow with `settle`."""

    def __init__(self, tables: Tables) -> None:
        self._trie = tables.address_classes
        self._pages = tables.class_pages
        self._narrow: dict[int, dict[Place, int]] = {}
        """By page: the prefixes in it."""
        self._touched: set[int] = set()

    def __setitem__(self, place: Place, number: int) -> None:
        if place[1] < layouts.PAGE_BITS:
            self._trie[place] = number
            return
        page = place[0] >> 8
        self._narrow.setdefault(page, {})[place] = number
        self._touched.add(page)

    def __delitem__(self, place: Place) -> None:
        if place[1] < layouts.PAGE_BITS:
            del self._trie[place]
            return
        page = place[0] >> 8
        del self._narrow[page][place]
        if place in self._trie.entries:
            del self._trie[place]
        self._touched.add(page)

    def update(self, entries: Mapping[Place, int]) -> None:
        """Set many."""
        for place, number in entries.items():
            self[place] = number

    def settle(self) -> None:
        """Bring the pages up to date that have changed."""
        for page in self._touched:
            self._settle(page)
        self._touched.clear()

    def _settle(self, page: int) -> None:
        held = self._narrow[page]
        packed = pack_page(held)
        if packed is not None and (page in self._pages.entries or len(self._pages.entries) < layouts.PAGES):
            if packed != self._pages.entries.get(page):
                self._pages[page] = packed
            self._trie.remove([place for place in held if place in self._trie.entries])
            return
        if page in self._pages.entries:
            del self._pages[page]
        if held:
            self._trie.update(held)
        else:
            del self._narrow[page]


def pack_page(prefixes: Mapping[Place, int]) -> bytes | None:
    """`mp_page` for these prefixes of one page; None if there are none, or it does not fit."""
    runs = _runs(prefixes) if prefixes else []
    if not runs or len(runs) > layouts.PAGE_RUNS:
        return None
    firsts, classes = zip(*runs, *[(_SIZE - 1, runs[-1][1])] * (layouts.PAGE_RUNS - len(runs)), strict=True)
    return _PACKED.pack(*classes, *firsts)


def _runs(prefixes: Mapping[Place, int]) -> list[Run]:
    if len(prefixes) == 1:
        ((address, length), number), *_ = prefixes.items()
        return list(_alone(address & 0xFF, 1 << 128 - length, number))
    cells = [layouts.CLASS_ELSEWHERE] * _SIZE
    for (address, length), number in sorted(prefixes.items(), key=lambda entry: entry[0][1]):
        first, size = address & 0xFF, 1 << 128 - length
        cells[first : first + size] = [number] * size
    return [(next(each)[0], number) for number, each in groupby(enumerate(cells), key=lambda cell: cell[1])]


def _alone(first: int, size: int, number: int) -> Iterable[Run]:
    """The runs of a page with one prefix, which most pages are."""
    if first:
        yield 0, layouts.CLASS_ELSEWHERE
    yield first, number
    if first + size < _SIZE:
        yield first + size, layouts.CLASS_ELSEWHERE
