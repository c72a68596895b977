"""Errors that an operator may read.

Front ends catch `MarchproxyError` and turn its class into an exit code.
"""

import reprlib

_SHORT = reprlib.Repr(maxstring=120, maxother=120)
"""A value may be a pasted file; its beginning and end are enough to find it."""


class MarchproxyError(Exception):
    """Something an operator should know: what was wrong and where, and what to do about it.

    `message` is one sentence without a full stop; `hint` may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidValue(MarchproxyError):
    """A value that cannot be meant: names the field, the value, and what would be right."""

    def __init__(self, field: str, value: object, expected: str, *, where: str = "") -> None:
        place = f"{where}: " if where else ""
        what = " has no value" if value is None else f": {_SHORT.repr(value)} is not valid"
        super().__init__(f"{place}{field}{what}", hint=f"expected {expected}")
        self.field = field
        self.value = value
        self.expected = expected
        self.where = where

    def at(self, where: str) -> "InvalidValue":
        """The same error, said of a place (`service "web"`, `line 12`) that only the caller knows."""
        inner = f"{where}, {self.where}" if self.where else where
        return InvalidValue(self.field, self.value, self.expected, where=inner)


class NotFound(MarchproxyError):
    """The operator named something that does not exist."""

    def __init__(self, kind: str, name: object, *, hint: str = "") -> None:
        super().__init__(f"{kind} {name!r} does not exist", hint=hint)
        self.kind = kind
        self.name = name


class Conflict(MarchproxyError):
    """The change contradicts what is there: a duplicate name, or something still in use."""


class NotPermitted(MarchproxyError):
    """The operating system refused: permissions or capabilities are missing."""


class DaemonNotRunning(MarchproxyError):
    """The control socket does not answer."""
