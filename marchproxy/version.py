"""The version, kept in one file: ``.version`` at the root of a checkout, copied into the package of a wheel.

importlib.metadata knows it too, but takes 30 ms of a start-up that may take 20; pathlib takes 8, typing 4.
"""

import os


def read_version(package: str) -> str:
    """Return the version of the code in folder `package`, as ``major.minor.patch.build``.

    The file may have a ``v`` before it and may leave the build (seconds since 1970) out.
    Raises MarchproxyError when an installation lost its ``.version``.
    """
    for folder in (package, os.path.dirname(package)):
        try:
            with open(os.path.join(folder, ".version"), encoding="utf-8") as file:
                return file.read().strip().removeprefix("v")
        except FileNotFoundError:
            continue
    from marchproxy.model.errors import MarchproxyError

    raise MarchproxyError(f"{package}: the file .version is missing", hint="install marchproxy again")


VERSION: str = read_version(os.path.dirname(os.path.abspath(__file__)))
