"""HTTP that is read: listeners whose mappings look at hosts, paths, credentials, or speak TLS.

From the outside in: `listeners` (accepting, TLS, who may speak at all), `client` (an HTTP/1.1 connection of a
client), `visitor` (what policy says to its requests), `exchange` (one request and its response, from the
decision to the log), `pool` and `upstream` (connections to backends), `switching` (WebSockets).

What needs no socket: `requests` and `responses` (heads), `bodies` (where a message ends), `fields` (what goes
on, and what is said about the client), `answers` (what we say ourselves).
"""
