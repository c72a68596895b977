"""Protocol layers without I/O: what a client says before it is let in, and what it is told.

A layer is an object with one method, `handle(event, now) -> list[Command]`. It owns no socket, reads no clock
and decides nothing about policy: what it makes out of the bytes is a `Request`, which it asks about with
`Ask`; the answer comes back as `Opened` or `Refused`. `exchange` declares events and commands; the module
that owns the sockets carries the commands out.

    what a client meets               layer
    the explicit proxy                detect.ExplicitLayer, which becomes http.HttpLayer or socks5.Socks5Layer
    a mapping that wants credentials  preface.PrefaceLayer
    a mapping that wants a TLS name   sni.SniLayer, on a listener or on what a tunnel carries first

What comes of a client's bytes does not depend on the pieces in which they arrive; the tests cut everything
everywhere. `proxyprotocol` is no layer: its header is read before any of them begins.
"""
