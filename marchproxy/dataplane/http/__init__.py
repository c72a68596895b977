"""HTTP that is read: listeners whose mappings look at hosts, paths, credentials, or speak TLS.

From the outside in: `listeners` (accepting, TLS, who may speak at all), `client` (an HTTP/1.1 connection of a
client), `visitor` (what policy says to its requests), `exchange` (one request and its response, from the
decision to the log), `pool` and `upstream` (connections to backends), `switching` (WebSockets). What an
exchange takes care of with backends is `care`, over `circuits`, `room` and `budget`; `rates` counts clients'
requests, `hello` and `clientauth` are for their certificates, `tracing` for ids, `telling` for the log.

What needs no socket: `requests` and `responses` (heads), `bodies` (where a message ends), `fields` (what goes
on, and what is said about the client), `answers` (what we say ourselves).
"""
