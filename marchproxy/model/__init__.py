"""What an operator means, as immutable values.

Five nouns carry everything else:

* **service**: a named set of addresses; as a source it says who a client is, as a destination what the
  backends are.
* **mapping**: who may talk to whom, first match by priority; without one, traffic is denied.
* **interface**: a network device the data plane attaches to.
* **cluster**: an isolated set of services and mappings.
* **snapshot**: all of these at one moment, as canonical JSON named by its SHA-256.

Text becomes values here and nowhere else: every parser raises `InvalidValue` with field, value and what would
be right, so the inner rooms can trust their types. This package imports nothing of ours and does no I/O.
"""
