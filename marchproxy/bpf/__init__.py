"""The programs that run in the kernel: C sources, the reasons, and the compiled objects beside them.

`objects/tc.bpf.o` and `objects/xdp.bpf.o` are the same pipeline compiled twice (see `pipeline.h`);
`objects/handoff.bpf.o` answers what user space asks about sockets; `objects/lookup.bpf.o` gives a socket the
connections of many ports.
"""

from pathlib import Path

ABI = 2
"""Layout of the pinned maps, and their folder (`v2`); raised when a struct in `marchproxy.h` changes.

`dataplane/kernel/inheritance.py` takes over what the one before has left."""
FORMER = 1
"""The one before."""

OBJECTS = Path(__file__).parent / "objects"
