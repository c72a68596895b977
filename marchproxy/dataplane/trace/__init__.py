"""Live questions to the kernel, compiled on demand by BCC: `marchproxy trace`.

`headers` makes what the C in `bpf/trace/` includes, from the running kernel's types; `child` is the script
that the system's Python runs, for that has BCC; `tracing` starts it and reads what it finds.
"""
