"""Networks that no packet on a real network comes from or goes to: a first block list that needs no download.

Private networks are not among them, which are in use inside, nor what a host needs to find its way:
unspecified and broadcast addresses (DHCP), link-local and multicast ones, and loopback, which the kernel
refuses by itself.
"""

MARTIANS: tuple[tuple[str, str], ...] = (
    ("192.0.2.0/24", "documentation, RFC 5737"),
    ("198.18.0.0/15", "benchmarks, RFC 2544"),
    ("198.51.100.0/24", "documentation, RFC 5737"),
    ("203.0.113.0/24", "documentation, RFC 5737"),
    ("240.0.0.0/5", "reserved, RFC 1112"),
    ("248.0.0.0/6", "reserved, RFC 1112"),
    ("252.0.0.0/7", "reserved, RFC 1112"),
    ("254.0.0.0/8", "reserved, RFC 1112"),
    ("2001:2::/48", "benchmarks, RFC 5180"),
    ("2001:10::/28", "ORCHID, returned, RFC 4843"),
    ("2001:db8::/32", "documentation, RFC 3849"),
    ("3ffe::/16", "6bone, returned, RFC 3701"),
    ("3fff::/20", "documentation, RFC 9637"),
    ("fec0::/10", "site-local, deprecated, RFC 3879"),
)
"""Prefix, and why (RFC 6890 has the registries). Each prefix length in use costs a look-up: few."""
