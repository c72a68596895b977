"""Everything that talks to BPF.

From the outside in: `tier` (the kernel as a tier of the data plane) and `loading`; `tables` with `audiences`,
`classes`, `memberships`, `backends` and `runs` (a plan as map entries) and `banks` (writing what changed);
`interfaces` (which program on which interface); `flows`, `changes`, `sweep` and `events` (what comes back);
`layouts` (the structs of `bpf/marchproxy.h`); and below them the binding: `objects`, `maps`, `links`,
`ringbuf`, `testrun`, `features`, all over `libbpf`, the only module with ctypes declarations.
"""
