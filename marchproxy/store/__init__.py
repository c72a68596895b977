"""What an operator meant, kept: the only room that speaks SQL.

* A **store** holds one snapshot and how it came about. `Store` in `store.py` is the whole interface.
* A **revision** is one signed-off step from one snapshot to the next, numbered from 1 without gaps. It is
  recorded as **changes**: each entity before and after, so any older snapshot can be rebuilt, and is checked
  against its SHA-256 when it is.
* A **transaction** is the only way to the database. A writing one excludes all other writers from its first
  statement on, so what it read is still true when it commits.
* A **migration** is a numbered step of the schema, committed together with its record.

SQLite by default; PostgreSQL or MySQL through `DATABASE_URL`. Writing goes through pydal's validating calls.
Reading is plain SQL over the same connection: it has nothing to validate, and importing pydal takes 80 ms
that `service list` should not pay. Imports `marchproxy.model` and nothing else of ours.
"""
