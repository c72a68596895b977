"""Classes of addresses as the programs look them up: in pages, and in a trie what no page tells.

A trie of ten thousand prefixes is 15 nodes deep, each of them memory that no cache holds. Prefixes within a
page, of 120 bits and more (/24 and longer of IPv4), are found by one look at a line of memory instead. Pages
that would need another one's line, or more room than one has, are in a hash. Wider prefixes, and those of a
page that is too diverse or finds no room at all, are in the trie.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from struct import Struct

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.entries import Place, Tables

type Run = tuple[int, int]
"""The last byte of its first address, and a class."""

_SIZE = 256
_PAGE = Struct(f"={layouts.PAGE_RUNS}I{layouts.PAGE_RUNS}B")
_LINE = Struct(f"=16s{layouts.LINE_RUNS}I{layouts.LINE_RUNS}B3x")
_HASH = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class AddressClasses:
    """Which class each prefix is of. Pages follow with `settle`."""

    def __init__(self, tables: Tables) -> None:
        self._trie = tables.address_classes
        self._lines = tables.class_lines
        self._pages = tables.class_pages
        self._slots: dict[int, dict[int, list[Run]]] = {}
        """By line: its pages, of which the first that fits has it, and what each says."""
        self._paged = 0
        """Pages that have a line or are in the hash."""
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
        for slot in {self._read(page) for page in self._touched}:
            self._place(slot)
        self._touched.clear()

    def _read(self, page: int) -> int:
        """Find out what a page says, or leave it to the trie. Returns its line."""
        held, slot = self._narrow[page], slot_of(page)
        pages = self._slots.setdefault(slot, {})
        runs = page_runs(held)
        if 0 < len(runs) <= layouts.PAGE_RUNS and (page in pages or self._paged < layouts.PAGES):
            self._paged += page not in pages
            pages[page] = runs
            self._trie.remove([place for place in held if place in self._trie.entries])
            return slot
        self._paged -= pages.pop(page, None) is not None
        if page in self._pages.entries:
            del self._pages[page]
        if held:
            self._trie.update(held)
        else:
            del self._narrow[page]
        return slot

    def _place(self, slot: int) -> None:
        """Give the line to one of its pages, and put the others into the hash."""
        pages = self._slots[slot]
        owner = next((page for page, runs in pages.items() if len(runs) <= layouts.LINE_RUNS), None)
        for page, runs in pages.items():
            if page == owner:
                self._pages.remove({page} & self._pages.entries.keys())
            elif (packed := pack_page(runs)) != self._pages.entries.get(page):
                self._pages[page] = packed
        if pages:
            line = pack_line(
                owner, [] if owner is None else pages[owner], more=len(pages) > 1 or owner is None
            )
            if line != self._lines.entries.get(slot):
                self._lines[slot] = line
        else:
            del self._slots[slot]
            self._lines.remove({slot} & self._lines.entries.keys())


def slot_of(page: int) -> int:
    """The line of a page, as `policy_line` finds it."""
    high, low = page >> 56, page << 8 & _MASK
    return ((high * _HASH & _MASK ^ low) * _HASH & _MASK) >> (64 - layouts.CLASS_LINES_BITS)


def pack_page(runs: Sequence[Run]) -> bytes:
    """`mp_page`."""
    firsts, classes = _columns(runs, layouts.PAGE_RUNS)
    return _PAGE.pack(*classes, *firsts)


def pack_line(page: int | None, runs: Sequence[Run], *, more: bool) -> bytes:
    """`mp_class_line` of a page, or of none; `more`: others are in the hash."""
    flags = (layouts.LINE_TAKEN if page is not None else 0) | (layouts.LINE_MORE if more else 0)
    firsts, classes = _columns(runs or [(0, layouts.CLASS_ELSEWHERE)], layouts.LINE_RUNS)
    return _LINE.pack(((page or 0) << 8 | flags).to_bytes(16), *classes, *firsts)


def _columns(runs: Sequence[Run], count: int) -> tuple[Sequence[int], Sequence[int]]:
    """First bytes and classes, the last one repeated."""
    filled = [*runs, *[(_SIZE - 1, runs[-1][1])] * (count - len(runs))]
    return [first for first, _ in filled], [number for _, number in filled]


def page_runs(prefixes: Mapping[Place, int]) -> list[Run]:
    """What the prefixes of one page say about its addresses; none if there are none."""
    return _runs(prefixes) if prefixes else []


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
