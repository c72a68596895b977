"""The checkout as the repository tests see it: what git tracks or would track."""

import functools
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file of the project, relative to `ROOT`: tracked, or new and not named by .gitignore."""
    # safe.directory: a checkout may belong to another user than the one who tests it.
    command = "git -c safe.directory=* ls-files -z --cached --others --exclude-standard"
    listed = subprocess.check_output(command.split(), cwd=ROOT, text=True)
    paths = (Path(name) for name in listed.split("\0") if name)
    # What was deleted and not yet committed is still listed.
    return tuple(sorted(path for path in paths if (ROOT / path).is_file()))


def texts(*suffixes: str) -> list[tuple[Path, str]]:
    """The text files of the project, or those with one of these suffixes, each with its content."""
    chosen = [path for path in files() if not suffixes or path.suffix in suffixes]
    contents = ((path, (ROOT / path).read_bytes()) for path in chosen)
    return [(path, content.decode()) for path, content in contents if b"\0" not in content]
