"""Block lists as the world writes them: plain text, CSV, `ipset save`, nftables sets. From lines to contents.

    10.0.0.0/8                        one a line; 10.0.0.1-10.0.0.9 too, and host names with a dot in them
    # ; //                            begin comments
    address,reason,expires            CSV with a header, its columns in any order; without one, the first
    1.2.3.4,scanner,2026-12-31…       column that holds an address, then reason, then expiry (RFC 3339)
    add NAME 1.2.3.0/24 timeout 600   ipset save; `create` and the like are passed over
    elements = { 1.2.3.4, … }         nftables, on any number of lines, with `timeout 1h` and `comment "…"`
    0.0.0.0 ads.example.com           hosts files

What is none of these is a bad line: reported with its number, and left out.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, summarize_address_range
from itertools import batched
from socket import AF_INET, AF_INET6, inet_pton

from marchproxy.model.address import HostName, IPAddress, Prefix, parse_address, parse_ip
from marchproxy.model.blocklist import MARK, NOTHING, BlockContents, Note, from_keys
from marchproxy.model.errors import InvalidValue, MarchproxyError
from marchproxy.model.readers import parse_expiry

SHOWN = 20
"""Bad lines that are kept with their text; the rest are counted."""
MAX_ENTRIES = 4_000_000

_V4_LENGTHS = {str(length): ((1 << 32 - length) - 1, length << 32) for length in range(33)}
_V6_LENGTHS = {str(length): ((1 << 128 - length) - 1, length << 32) for length in range(129)}
"""By the text of a length: the bits that have to be 0 in its prefixes, and the length as `key_of` has it."""
_MAPPED = 0xFFFF
"""The first 96 bits of IPv4 inside IPv6 (RFC 4291, 2.5.5.2): not to be blocked under that disguise."""
_COMMENT = re.compile(r"(?:^|\s)(?:#|;|//).*|[#;].*")
_RANGE = re.compile(r"[0-9A-Fa-f.:]+\s*-\s*[0-9A-Fa-f.:]+")
_IPSET_QUIET = ("create ", "flush", "destroy", "swap ", "rename ", "COMMIT")
_IPSET_OPTION = re.compile(r'(timeout|comment|packets|bytes)\s+("[^"]*"|\S+)')
_NFT_OPEN = re.compile(r"elements\s*=\s*\{|add\s+element\s[^{]*\{")
_NFT_QUIET = re.compile(
    r"(table|set|map)\s.*\{|type\s|flags\s|auto-merge|gc-interval\s|timeout\s|size\s|policy\s|counter$|comment\s"
    r"|\}|add\s+(table|set)\s|(flush|delete|destroy)\s"
)
_NFT_ITEM = re.compile(r'(?:[^,"]|"[^"]*"?)+')
_NFT_OPTION = re.compile(
    r'\s(timeout|expires|comment|counter(?=\s+packets))\s+("[^"]*"|packets \d+ bytes \d+|\S+)'
)
_DURATION = re.compile(r"(\d+)(d|h|ms|m|s)")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_ADDRESS_TITLES = (
    *("address", "ip", "cidr", "prefix", "network", "subnet", "range", "ip_address", "ipaddress", "src_ip"),
    *("host", "domain", "dst_ip", "indicator", "entry", "value"),
)
_REASON_TITLES = ("reason", "comment", "description", "note", "category", "tag", "threat")
_EXPIRY_TITLES = ("expires", "expiry", "until", "valid_until", "expiration", "expires_at")
_OVER = -1
"""The mark of entries that have expired."""
_REMEMBERED = 10_000
_HOSTS = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1"})  # noqa: S104  (words of a file, not bound to)


class TooManyEntries(MarchproxyError):
    """The file holds more than one list may."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is nothing we know."""

    number: int
    """From 1."""
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file came to."""

    contents: BlockContents
    read: int
    """Entries, before repeated and covered ones were left out."""
    bad: tuple[BadLine, ...]
    """The first of them."""
    bad_lines: int
    expired: int
    """Entries left out because the file says that they are over."""


class _Bad(Exception):
    """Why a line says nothing."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column of a CSV file holds what; -1: none."""

    address: int
    reason: int
    expires: int


type _Form = tuple[_Columns | None, bool]
"""What earlier lines said about those that follow: the columns of CSV, and whether a set is open."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a reader took, for another to take over; it can be pickled."""

    began: _Form
    ended: _Form
    lines: int
    v4: list[int]
    v6: list[int]
    names: list[tuple[str, int]]
    notes: list[Note]
    bad: list[BadLine]
    bad_lines: int
    expired: int


def read_blocks(lines: Iterable[str], now: datetime) -> Reading:
    """Read a whole file. `now` has a zone. Raises `TooManyEntries`."""
    reader = BlockReader(now)
    for some in batched(lines, 20_000):
        reader.take(some)
    return reader.finish()


class BlockReader:
    """Collects entries as keys (`key_of`): 60 MB for a million of them.

    A million lines are a million times whatever is done to a line. So each line is first taken for what the
    line before it was, and in its usual spelling; only one that is not costs a closer look.
    """

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._v4: list[int] = []
        self._v6: list[int] = []
        self._names: list[tuple[str, int]] = []
        self._marks: dict[Note, int] = {NOTHING: 0}
        self._known: dict[tuple[str, ...], int] = {}
        """Marks by what the file said, lately: a million lines mostly say the same few things."""
        self._bad: list[BadLine] = []
        self._bad_lines = 0
        self._expired = 0
        self._columns: _Columns | None = None
        self._in_elements = False
        self._lines = 0
        self._began: _Form = self._form
        self._quickly: Callable[[str], bool] = self._address
        """Takes a line of the form that the last one had, or says False and leaves it."""

    def take(self, lines: Sequence[str]) -> None:
        """Take the next lines. Raises `TooManyEntries`."""
        for number, text in enumerate(map(str.strip, lines), self._lines + 1):
            try:
                if not self._quickly(text):
                    self._closely(text)
            except (_Bad, InvalidValue, csv.Error) as error:
                self._bad_lines += 1
                if len(self._bad) < SHOWN:
                    why = f"expected {error.expected if isinstance(error, InvalidValue) else error}"
                    self._bad.append(BadLine(number, text[:200], why))
        self._lines += len(lines)
        self._expect_room()

    def apart(self) -> "BlockReader":
        """A reader for lines further on in the same file, in the form of those read so far."""
        other = BlockReader(self._now)
        other._columns, other._in_elements = other._began = self._form
        other._quickly = getattr(other, self._quickly.__name__)
        other._marks = dict(self._marks)
        other._known = dict(self._known)
        return other

    def part(self) -> Part:
        """What it took, for `join`."""
        self._v4.sort()
        self._v6.sort()
        return Part(
            self._began,
            self._form,
            self._lines,
            self._v4,
            self._v6,
            self._names,
            list(self._marks),
            self._bad,
            self._bad_lines,
            self._expired,
        )

    def join(self, part: Part) -> bool:
        """Take what another reader made of the next lines. Raises `TooManyEntries`.

        False: those lines are to be read otherwise than it did, and nothing was taken.
        """
        if part.began != self._form:
            return False
        marks = [self._marks.setdefault(note, len(self._marks)) for note in part.notes]
        if marks != list(range(len(marks))):
            for keys in (part.v4, part.v6):
                keys[:] = [key - (key & MARK) + marks[key & MARK] for key in keys]
        self._v4 += part.v4
        self._v6 += part.v6
        self._names += [(name, marks[mark]) for name, mark in part.names]
        more = [replace(bad, number=bad.number + self._lines) for bad in part.bad]
        self._bad = [*self._bad, *more][:SHOWN]
        self._bad_lines += part.bad_lines
        self._expired += part.expired
        self._lines += part.lines
        self._columns, self._in_elements = part.ended
        self._expect_room()
        return True

    @property
    def _form(self) -> _Form:
        return self._columns, self._in_elements

    @property
    def _count(self) -> int:
        return len(self._v4) + len(self._v6) + len(self._names)

    def _expect_room(self) -> None:
        if self._count > MAX_ENTRIES:
            raise TooManyEntries(
                f"more than {MAX_ENTRIES} entries by line {self._lines}", hint="split the list"
            )

    def _address(self, text: str, mark: int = 0) -> bool:
        """Take an address or prefix that is exactly as it should be; False: look closer."""
        head, slash, length = text.partition("/")
        try:
            if ":" not in head:
                start = int.from_bytes(inet_pton(AF_INET, head))
                rest, bits = _V4_LENGTHS[length if slash else "32"]
                if start & rest:
                    return False
                self._v4.append(start << 40 | bits | mark)
                return True
            start = int.from_bytes(inet_pton(AF_INET6, head))
            rest, bits = _V6_LENGTHS[length if slash else "128"]
        except (OSError, KeyError, ValueError):
            return False
        if start & rest or start >> 32 == _MAPPED:
            return False
        self._v6.append(start << 40 | bits | mark)
        return True

    def _ipset_quickly(self, text: str) -> bool:
        words = text.split(" ", 3)
        if len(words) < 3 or words[0] != "add":
            return False
        mark = self._known.get(("ipset", words[3]), _OVER) if len(words) == 4 else 0
        return mark != _OVER and self._address(words[2], mark)

    def _csv_quickly(self, text: str) -> bool:
        columns = self._columns
        if columns is None:
            return False
        first, _, rest = text.partition(",")
        mark = self._known.get(("csv", rest), _OVER)
        if mark != _OVER:
            return self._address(first, mark)
        if "\t" in text or _is_special(text):
            return False
        fields = text.split(",")
        said = ("csv", _field(fields, columns.reason), _field(fields, columns.expires))
        mark = self._known.get(said, _OVER)
        if mark == _OVER:
            return False
        if columns.address == 0:
            self._remember(("csv", rest), mark)
        return self._address(_field(fields, columns.address), mark)

    def _nft_quickly(self, text: str) -> bool:
        if _is_special(text):
            return False
        self._nft_elements(text.split(","))
        return True

    def finish(self) -> Reading:
        """Sort what there is and make it contents."""
        read = self._count
        contents = from_keys(self._v4, self._v6, self._names, tuple(self._marks))
        return Reading(contents, read, tuple(self._bad), self._bad_lines, self._expired)

    def _closely(self, text: str) -> None:
        if self._in_elements:
            self._nft(text)
        elif self._address(text):
            self._quickly = self._csv_quickly if self._columns else self._address
        elif text.startswith("add ") and "{" not in text:
            self._quickly = self._ipset_quickly
            self._ipset(text)
        elif "{" in text and _NFT_OPEN.search(text):
            self._nft(text)
        else:
            self._plain(text if '"' in text else _COMMENT.sub("", text).strip())

    def _plain(self, text: str) -> None:
        if not text or text.startswith(_IPSET_QUIET) or _NFT_QUIET.match(text):
            return
        words = text.split()
        if "," in text or "\t" in text or self._columns:
            self._quickly = self._csv_quickly
            self._csv(text)
        elif len(words) > 1 and words[0] in _HOSTS:
            for name in words[1:]:
                self._add(name)
        else:
            self._add(text)

    def _ipset(self, text: str) -> None:
        _, _, address, *more = text.split(None, 3) if text.count(" ") > 1 else ("", "", ",")
        if "," in address:
            raise _Bad("an address alone: with a port, it would block more than it says")
        rest = more[0] if more else ""
        if "nomatch" in rest.split():
            raise _Bad("no nomatch: exceptions inside what is blocked are not supported")
        options = dict(_IPSET_OPTION.findall(rest)) if rest else {}
        seconds = options.get("timeout", "0")
        if not (seconds.isascii() and seconds.isdigit()) or len(seconds) > 9:
            raise _Bad("a timeout in seconds")
        comment = options.get("comment", "")
        self._add(address, self._mark(("ipset", rest), comment, seconds=float(seconds)) if rest else 0)

    def _nft(self, text: str) -> None:
        if not self._in_elements:
            opening = _NFT_OPEN.search(text)
            text = text[opening.end() :] if opening else text
            self._in_elements = True
        text, closing, _ = (text if '"' in text else text.partition("#")[0]).partition("}")
        self._in_elements = not closing
        self._quickly = self._address if closing else self._nft_quickly
        self._nft_elements(_NFT_ITEM.findall(text) if '"' in text else text.split(","))

    def _nft_elements(self, items: Iterable[str]) -> None:
        problem: _Bad | InvalidValue | None = None
        for item in map(str.strip, items):
            address, _, rest = item.partition(" ")
            mark = self._known.get(("nft", rest), _OVER) if rest else 0
            if not item or (mark != _OVER and self._address(address, mark)):
                continue
            try:
                self._nft_element(item)
            except (_Bad, InvalidValue) as error:
                problem = error
        if problem:
            raise problem

    def _nft_element(self, item: str) -> None:
        options: dict[str, str] = dict(_NFT_OPTION.findall(item))
        limit = options.get("expires", options.get("timeout", ""))
        seconds = sum((float(count) * _UNITS[unit] for count, unit in _DURATION.findall(limit)), 0.0)
        if limit and not seconds:
            raise _Bad("a timeout such as 1h30m")
        address = _NFT_OPTION.sub("", item).removesuffix(" counter").strip()
        head, _, rest = item.partition(" ")
        # Only what is all options is remembered: what else follows an address may be the end of a range.
        said = ("nft", rest) if head == address else ("", options.get("comment", ""), str(seconds))
        self._add(address, self._mark(said, options.get("comment", ""), seconds=seconds))

    def _csv(self, text: str) -> None:
        delimiter = "\t" if "\t" in text and "," not in text else ","
        fields = next(csv.reader([text], delimiter=delimiter)) if '"' in text else text.split(delimiter)
        fields = [field.strip() for field in fields]
        if self._columns is None:
            titles = [field.lower().replace(" ", "_") for field in fields]
            if any(title in _ADDRESS_TITLES for title in titles):
                self._columns = _Columns(
                    _find(titles, _ADDRESS_TITLES),
                    _find(titles, _REASON_TITLES),
                    _find(titles, _EXPIRY_TITLES),
                )
                return
            self._columns = _guess(fields)
        columns = self._columns
        if columns.address >= len(fields):
            raise _Bad(f"an address in column {columns.address + 1}")
        reason, expires = _field(fields, columns.reason), _field(fields, columns.expires)
        mark = self._mark(("csv", reason, expires), reason, expires=expires)
        self._add(fields[columns.address], mark)

    def _mark(self, said: tuple[str, ...], reason: str, *, seconds: float = 0, expires: str = "") -> int:
        """The mark of entries with this reason that end at an instant, or after some seconds (0: never).

        It is remembered under what the file `said`.
        """
        mark = self._known.get(said)
        if mark is None:
            mark = self._new_mark(reason, seconds, expires)
            self._remember(said, mark)
        return mark

    def _remember(self, said: tuple[str, ...], mark: int) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[said] = mark

    def _new_mark(self, reason: str, seconds: float, expires: str) -> int:
        reason = reason.strip().strip('"').strip()[:200]
        if not reason.isprintable():
            raise _Bad("a reason of printable characters")
        ends = parse_expiry(expires) if expires else None
        if seconds:
            try:
                ends = self._now.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=seconds)
            except OverflowError:
                raise _Bad("a shorter timeout") from None
        if ends is not None and ends <= self._now:
            return _OVER
        return self._marks.setdefault(Note(reason, ends), len(self._marks))

    def _add(self, text: str, mark: int = 0) -> None:
        if mark == _OVER:
            list(_meant(text))
            self._expired += 1
            return
        if self._address(text, mark):
            return
        for each in list(_meant(text)):
            if isinstance(each, str):
                self._names.append((each, mark))
            else:
                self._address(str(each), mark)


def _meant(text: str) -> Iterator[Prefix | str]:
    """What one entry means: prefixes, or a host name."""
    if _RANGE.fullmatch(text):
        first, _, last = text.partition("-")
        yield from _between(parse_ip(first), parse_ip(last), text)
        return
    if text.startswith("*."):
        yield f"*.{_host(text[2:])}"
        return
    address = parse_address(text)
    yield _host(text) if isinstance(address, HostName) else address


def _host(text: str) -> str:
    name = parse_address(text)
    if not isinstance(name, HostName) or "." not in name.name:
        raise _Bad("an IPv4 or IPv6 address, a prefix, a range, or a host name with a dot in it")
    return name.name


def _between(first: IPAddress, last: IPAddress, text: str) -> Iterator[Prefix]:
    if first.version != last.version or int(first) > int(last):
        raise _Bad("a range from low to high, of one IP version")
    if isinstance(first, IPv4Address) and isinstance(last, IPv4Address):
        return summarize_address_range(first, last)
    return summarize_address_range(first, last)


def _is_special(text: str) -> bool:
    """Whether a line may have a quotation, a comment, or an end of a set in it. A fifth of a regex's time."""
    return '"' in text or "#" in text or ";" in text or "//" in text or "{" in text or "}" in text


def _find(titles: list[str], wanted: tuple[str, ...]) -> int:
    return next((titles.index(name) for name in wanted if name in titles), -1)


def _field(fields: list[str], column: int) -> str:
    return fields[column].strip() if 0 <= column < len(fields) else ""


def _guess(fields: list[str]) -> _Columns:
    """Columns of a file without a header: the first that holds an address, then reason and expiry."""
    for column, field in enumerate(fields):
        try:
            list(_meant(field))
        except (_Bad, InvalidValue):
            continue
        return _Columns(column, column + 1, column + 2)
    raise _Bad("a column with an address, or a header that names one")
