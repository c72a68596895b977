"""Host names and the addresses they stand for, over time.

* `system` reads what the host says about resolving: /etc/resolv.conf and /etc/hosts.
* `exchange` puts one question to one server; `asker` puts it to all of them in turn.
* `lookup` turns a host name into addresses and how long they hold.
* `rebinding` says which addresses a name may not have; `patterns` finds names and wildcards by name.
* `held` is one name's addresses over time, `table` those of all names; `memory` keeps them over a restart.
* `resolver` follows the names of the plan, and is told what clients were answered.

Nothing but `resolver`, `asker` and `exchange` waits or knows the time.
"""
