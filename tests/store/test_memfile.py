"""What is read from a file in memory, and that nothing of it stays."""

import os
from pathlib import Path

from marchproxy.store.memfile import in_memory


def test_it_is_read_meanwhile_and_by_its_owner_alone() -> None:
    with in_memory(b"a key") as path:
        descriptor = os.open(path, os.O_RDONLY)
        assert os.read(descriptor, 100) == b"a key"
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        os.close(descriptor)
        shown = Path(path).readlink()
    assert "memfd:certificate" in str(shown)
    assert not Path(path).exists()
