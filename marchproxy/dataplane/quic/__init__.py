"""QUIC at UDP sockets of ours (RFC 9000): what is under HTTP/3, and knows nothing of it.

An `Endpoint` is a socket and the `Connection`s that came to it. Each is driven by an `Engine`: aioquic's
state machine without I/O, with our limits. `steering` has several processes share a port, `packets` are what
is said to who has no connection, `handshakes` counts those who begin one.
"""
