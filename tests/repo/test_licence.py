"""The licence is complete and unchanged, and the kernel programs declare what the kernel asks for."""

import hashlib
import re
from typing import Final

from tests.repo.tree import ROOT, texts

AGPL_SHA256: Final = "0d96a4ff68ad6d4b6f1f30f713b18d5184912ba8dd389f86aa7710db079abcb0"
"""Of the text that the Free Software Foundation publishes as agpl-3.0.txt."""


def test_the_agpl_is_verbatim() -> None:
    text = re.search(r"^```text\n(.*)^```$", (ROOT / "LICENSE.md").read_text(), re.MULTILINE | re.DOTALL)
    assert text is not None
    assert hashlib.sha256(text.group(1).encode()).hexdigest() == AGPL_SHA256


def test_c_sources_name_their_licence_first() -> None:
    first_lines = {name: text.split("\n", 1)[0] for name, text in sources().items()}
    assert [
        name for name, line in first_lines.items() if "SPDX-License-Identifier: GPL-2.0" not in line
    ] == []


def test_kernel_programs_declare_gpl() -> None:
    """Without it the verifier refuses the helpers that are reserved for GPL programs."""
    declared = re.compile(r'SEC\("license"\)\s*=\s*"GPL"')
    programs = [name for name in sources() if name.endswith(".bpf.c")]
    assert programs
    assert [name for name in programs if not declared.search(with_includes(name))] == []


def sources() -> dict[str, str]:
    found = {path.name: text for path, text in texts(".c", ".h") if path.match("marchproxy/bpf/*")}
    assert found
    return found


def with_includes(name: str) -> str:
    """A source with the project's own headers in place of their #include lines."""
    own = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
    return own.sub(lambda line: with_includes(line.group(1)), sources()[name])
