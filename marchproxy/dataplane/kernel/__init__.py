"""Everything that talks to BPF.

From the outside in: `tier` (the kernel as a tier of the data plane), `apply` and `tables` (a plan as map entries, and
the difference that is written), `flows` and `events` (what comes back), `attach` (which program on which interface),
`layouts` (the structs of `bpf/marchproxy.h`), and below them the binding: `objects`, `maps`, `links`, `ringbuf`,
`testrun`, `features`, all over `libbpf`, the only module with ctypes declarations.
"""
