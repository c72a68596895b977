"""What a store of an older version becomes, tried on a copy.

Before an upgrade is let loose on it, somebody has to ask whether the result is any good; and until then the
version that still runs needs the store as it is.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from marchproxy.model.snapshot import Snapshot
from marchproxy.store.database import Database
from marchproxy.store.engines import BUSY_TIMEOUT
from marchproxy.store.location import FILE_NAME, locate
from marchproxy.store.store import Store


def rehearse(state_dir: Path | None = None) -> Snapshot | None:
    """The snapshot after all migrations of this version; None for a store on a server, which is not copied.

    Raises `StoreError`, whatever a migration raises included, and OSError where there is no room for a copy.
    """
    location = locate(state_dir)
    if location.path is None:
        return None
    # For its owner only: secrets are sealed, hashes of keys are not.
    with TemporaryDirectory(prefix="marchproxy-") as folder:
        original = Database.open_file(location, location.path, read_only=True, timeout=BUSY_TIMEOUT)
        try:
            original.query("VACUUM INTO ?", str(Path(folder) / FILE_NAME))
        finally:
            original.close()
        (Path(folder) / FILE_NAME).chmod(0o600)
        with Store.open(Path(folder)) as copy:
            return copy.snapshot()
