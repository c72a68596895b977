"""What a check says."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Something works worse than it could, or will not work one day."""
    ERROR = "error"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the appliance or its machine."""

    severity: Severity
    message: str
    evidence: str
    """What was seen, and where."""
    fix: str = ""
    """The command that puts it right; empty: nothing is wrong."""
    check: str = ""
    """Which check found it."""


def fine(message: str, evidence: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Severity.OK, message, evidence)


def warning(message: str, evidence: str, fix: str) -> Finding:
    """Somebody should look at it."""
    return Finding(Severity.WARNING, message, evidence, fix)


def error(message: str, evidence: str, fix: str) -> Finding:
    """Somebody has to put it right."""
    return Finding(Severity.ERROR, message, evidence, fix)
