"""Inputs that are always tried: `tests/corpus/TARGET/*.txt`, each the literal of some bytes.

What a longer run finds is added there, and stays.
"""

import ast
import hashlib
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "corpus"


def entries(target: str) -> list[tuple[str, bytes]]:
    """Names and inputs of a target, in order."""
    found = sorted((CORPUS / target).glob("*.txt"))
    return [(file.stem, ast.literal_eval(file.read_text())) for file in found]


def add(target: str, data: bytes) -> Path:
    """Keep an input; the file."""
    file = CORPUS / target / f"found-{hashlib.sha256(data).hexdigest()[:12]}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{data!r}\n")
    return file
