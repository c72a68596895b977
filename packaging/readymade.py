"""Spares a payload the compiling that `dataclasses` does at every start.

    PAYLOAD/bin/python3.N -s -B packaging/readymade.py

For each class `dataclasses` composes the text of its methods when the module is imported, and compiles it: a
third of the time that importing takes. This imports all modules of MarchProxy once, and puts the code of each
text beside `dataclasses` of the interpreter that runs it, where its module then looks first. A text that is
not there is compiled as ever, so nothing depends on this but time.
"""

import dataclasses
import importlib
import marshal
import pkgutil
import sys
from _imp import source_hash
from collections.abc import Iterable
from pathlib import Path
from types import CodeType
from typing import Any, Final

import marchproxy

COMPILED: Final = "exec(txt, self.globals, ns)"
"""The one place of the module where it compiles."""
LOOKS: Final = "exec(_ready_made(txt), self.globals, ns)"
ADDED: Final = """

# Added by MarchProxy (packaging/readymade.py): what texts are compiled to. The file has the size of an index,
# the index, and codes, whose place and size are in the index under the hash of the text. It is mapped, so
# that processes share it.
import _imp
import marshal
import mmap
try:
    with open(__file__.removesuffix(".py") + ".codes", "rb") as _file:
        _codes = mmap.mmap(_file.fileno(), 0, access=mmap.ACCESS_READ, trackfd=False)
    _first = 4 + int.from_bytes(_codes[:4], "little")
    _index = marshal.loads(_codes[4:_first])
except (OSError, ValueError, EOFError, TypeError):
    _index = {}


def _ready_made(text):
    start, size = _index.get(_imp.source_hash(0, text.encode()), (0, 0))
    if not size:
        return text
    start += _first
    code = marshal.loads(_codes[start : start + size])
    # The pages are in the cache for the next one, and in no memory of this process.
    _codes.madvise(mmap.MADV_DONTNEED)
    return code
"""
FORMAT: Final = 2
"""Of marshal: later ones write what depends on what the process has done before."""


def texts() -> Iterable[str]:
    """Each text that importing all modules has compiled, in the order of the first time."""
    found: dict[str, None] = {}

    def execute(text: str | CodeType, names: dict[str, Any], own: dict[str, Any]) -> None:
        found.setdefault(str(text))
        exec(text, names, own)  # noqa: S102  # as the module itself would

    vars(dataclasses)["exec"] = execute
    for module in pkgutil.walk_packages(marchproxy.__path__, f"{marchproxy.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return found


def packed(sources: Iterable[str]) -> bytes:
    """The file: see `ADDED`. What is imported together lies together: a process has few pages of it."""
    index, codes = {}, b""
    for text in sources:
        code = marshal.dumps(compile(text, "<string>", "exec"), FORMAT)
        index[source_hash(0, text.encode())] = len(codes), len(code)
        codes += code
    table = marshal.dumps(index, FORMAT)
    return len(table).to_bytes(4, "little") + table + codes


def main() -> int:
    """Write the codes, and have the module look there; 1 where it is not the module that we know."""
    source = Path(dataclasses.__file__)
    written = source.read_text()
    if written.count(COMPILED) != 1:
        print(f"{source} compiles elsewhere than this expects: {COMPILED}", file=sys.stderr)
        return 1
    source.with_suffix(".codes").write_bytes(packed(texts()))
    source.write_text(written.replace(COMPILED, LOOKS) + ADDED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
