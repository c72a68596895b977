"""The tier on plain sockets: the same listeners and policy as the kernel tier, on asyncio, where BPF is not
permitted.

From the outside in: `tier` (a plan as open listeners), `tcp` and `udp` (who is let in, and to which backend:
`balance`), `relay` (bytes between two connected sockets), `ledger` (the facts about it all), `sockets`
(options, binding, refusing).

Sockets are non-blocking and used directly, without asyncio's transports: nothing may sit in a hidden buffer
when a connection is refused, reset, or (some day) handed over to the kernel.
"""
