"""What can be done while modules are still imported: the kernel verifies the pipeline, which takes a third of
the time to start and nothing of the interpreter."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from marchproxy.dataplane.options import RunOptions
from marchproxy.model.errors import MarchproxyError

if TYPE_CHECKING:
    from marchproxy.dataplane.kernel.loading import Pipeline


class Ahead:
    """The pipeline, loaded in a thread from construction on."""

    def __init__(self, options: RunOptions) -> None:
        """Begin, unless sockets are to carry. By now no other daemon may have the runtime folder."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        wanted = not options.no_bpf
        self._loading = self._thread.submit(_load, options.state_dir) if wanted else None

    def take(self) -> "Pipeline | None":
        """The pipeline, which is the caller's from now on; None: it has to be loaded by whoever asks.

        Waits for it. Raises as `load_pipeline`.
        """
        loading, self._loading = self._loading, None
        return loading.result() if loading else None

    def close(self) -> None:
        """Let go of what nobody took. May be repeated."""
        try:
            untaken = self.take()
        except (MarchproxyError, OSError):
            untaken = None
        if untaken:
            untaken.close()
        self._thread.shutdown()


def _load(state_dir: Path | None) -> "Pipeline | None":
    """None where only the supervisor can say how large tables are to be: a trial may go back, a store may
    have to be migrated, or there is none, of which it tells."""
    from marchproxy.store.errors import StoreError
    from marchproxy.store.store import Store

    try:
        with Store.open(state_dir, read_only=True) as store:
            if store.trial():
                return None
            flow_table = store.settings().flow_table
    except StoreError:
        return None
    from marchproxy.dataplane.kernel import inheritance
    from marchproxy.dataplane.kernel.loading import load_pipeline
    from marchproxy.dataplane.kernel.location import pin_directory

    pins = pin_directory()
    if inheritance.is_left(pins):
        # It is taken over when nothing can fail any more but the loading.
        return None
    return load_pipeline(pins, flow_table=flow_table)
