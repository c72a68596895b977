"""What looks like a secret is taken out of texts that others may get to see, wherever it came from."""

import re

_SECRETS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.S), "[removed]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=_.~-]+"), r"\1 [removed]"),
    (re.compile(r"(MARCHPROXY/1)\s+\S+"), r"\1 [removed]"),
    (re.compile(r"://[^/@\s\"']+@"), "://[removed]@"),
    (
        re.compile(
            r"(?i)\b(password|passwd|secret|token|api[-_]?key|db_pass)\b([\"']?\s*[:=]\s*[\"']?)[^\s\"',}]+"
        ),
        r"\1\2[removed]",
    ),
    (re.compile(r"(\"log_http\": ?\"https?://[^/\"]+)/[^\"]+"), r"\1/[removed]"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "[removed]"),
    (re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{43}=?(?![\w+/=-])"), "[removed]"),
)
"""Keys, HTTP and our own credentials, those in URLs, settings, paths of log platforms, JWTs, and 32 bytes in
Base64 as tokens are."""


def redact(text: str) -> str:
    """The text without what looks like a secret."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
