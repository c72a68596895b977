"""HTTP/3 towards clients (RFC 9114), over QUIC.

From the outside in: `listeners` (who may speak at all), `client` (a connection: its streams, where its client
is), `stream` (a request, as exchanges see it), `framing` (frames and field compression, within limits).
"""
