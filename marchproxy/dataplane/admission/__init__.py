"""Connections that must be understood before they are let in: the explicit proxy, and mappings with a
credential.

From the outside in: `service` (a plan as open listeners, beside whichever tier), `session` (one client, as
long as a protocol layer talks to it), `explicit` and `listening` (what becomes of a request: who decides, and
where it goes), `judge` (policy and credentials), `names` and `dialling` (from a name to a connection),
`tunnels` (what was let in, until it ends or the kernel takes it), `association` (datagrams of SOCKS5).

The layers themselves, without I/O, are `dataplane/proxy/protocol`; bytes are carried by
`dataplane/proxy/relay`.
"""
