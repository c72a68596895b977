"""What certificates of clients may say: their CA, what was revoked, and patterns for names."""

import re

from marchproxy.model.errors import InvalidValue

KINDS = ("cn", "ou", "o", "dns", "email", "uri", "ip")
"""Parts of the subject, and kinds of alternative names (RFC 5280 section 4.2.1.6)."""
MAX_CRL = 4 * 1024 * 1024
"""Characters of PEM: some 50,000 certificates that were revoked."""
_CRL = re.compile(r"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----\n?", re.DOTALL)


def parse_client_name(text: str, *, field: str) -> str:
    """Read `KIND:NAME`; `*` in a name stands for any characters but none at all."""
    kind, colon, name = text.strip().partition(":")
    kind = kind.strip().lower()
    if not colon or kind not in KINDS or not 1 <= len(name) <= 255 or not name.isprintable():
        expected = "one of " + ", ".join(f"{each}:NAME" for each in KINDS) + ", with * for any characters"
        raise InvalidValue(field, text, expected)
    return f"{kind}:{name}"


def name_fits(pattern: str, kind: str, name: str) -> bool:
    """Whether a name of a certificate is what `pattern` says. DNS names and hosts of email in any case."""
    wanted, _, rest = pattern.partition(":")
    if wanted != kind:
        return False
    expression = ".+".join(map(re.escape, rest.split("*")))
    flags = re.IGNORECASE if kind in ("dns", "email") else re.NOFLAG
    return re.fullmatch(expression, name, flags | re.DOTALL) is not None


def parse_crl(text: str, *, field: str) -> str:
    """Read certificate revocation lists in PEM form; what stands around them is left out."""
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_pem_x509_crl

    if not text.strip():
        return ""
    found = _CRL.findall(text) if len(text) <= MAX_CRL else []
    try:
        lists = [load_pem_x509_crl(each.encode("ascii")) for each in found]
    except ValueError:
        lists = []
    if not lists:
        expected = f"revocation lists in PEM form (-----BEGIN X509 CRL-----), at most {MAX_CRL} characters"
        raise InvalidValue(field, text.strip()[:40], expected)
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in lists)
