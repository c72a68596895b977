"""Protocol layers without I/O: what a client says before it is let in, and what it is told.

A layer is an object with one method, `handle(event, now) -> list[Command]`. It owns no socket, reads no clock
and decides nothing about policy: what it makes out of the bytes is a `Request`, which it asks about with
`Ask`; the answer comes back as `Opened` or `Refused`. `exchange` declares events and commands; the module
that owns the sockets carries the commands out.
"""
