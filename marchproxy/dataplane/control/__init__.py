"""The daemon's front door: versioned JSON over HTTP/1.1 on a Unix socket (docs/CONTROL_SOCKET.md).

* `http1` reads requests and writes responses as values, without I/O.
* `server` owns the connections and their limits; `/metrics` and `/healthz` run on it too.
* `documents` says what records look like in JSON, `filters` which of them a client asked for.
* `api` answers: one function per route, over the `Appliance` that the supervisor is.
"""
