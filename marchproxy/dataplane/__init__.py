"""The daemon: carries out the plan and reports facts.

* `supervisor` starts and stops everything, `control/` answers the Unix socket, `tier` says what a tier does.
* `kernel/` is the tier that attaches XDP and TC programs; nobody else reads a BPF map.
* `proxy/` is the tier on plain sockets, and the protocol layers.
* `records` are the facts that leave this package: one decision record, whatever the tier.
"""
