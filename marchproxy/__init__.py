"""MarchProxy: Python decides which service may talk to which, the kernel carries what is allowed.

The words that every package here uses:

- A *service* is a named set of addresses; a *mapping* says who may talk to whom; what none allows is denied.
- A *snapshot* is all of an operator's intent at one moment, named by its SHA-256; a *revision* is a numbered
  step from one snapshot to the next.
- A *plan* is a snapshot compiled: kernel table entries, listeners, names to resolve.
- A *flow* is one conversation in the kernel's table; its *verdict* and *reason* say what became of it.

The rooms, from the bottom up: ``model`` (intent as plain values), ``bpf`` (the kernel programs), ``store``
(intent on disk), ``policy`` (intent compiled), ``telemetry`` (facts for other systems), ``dataplane`` (the
daemon), ``cli`` (the operator's commands). Imports point downwards only; the reasons are in pyproject.toml.

Importing this package loads nothing: `marchproxy --version` has 20 ms.
"""
