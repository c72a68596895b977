"""HTTP/2 (RFC 9113), towards clients and backends. The library `h2` knows frames and the states of streams.

`frames` looks at what arrives before the library does: floods, GOAWAY. `link` is what both ends of a
connection have in common: windows, back-pressure, order. `client` and `stream` are the side of clients,
`upstream` and `pool` that of backends. `websockets` is RFC 8441. Heads are read by `pseudofields`.
"""
