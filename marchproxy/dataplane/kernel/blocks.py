"""Blocks in the kernel: an image for each layer, exchanged as a whole."""

import ctypes as ct
import mmap
import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from marchproxy.dataplane.kernel import layouts
from marchproxy.dataplane.kernel.blockimage import build_image
from marchproxy.dataplane.kernel.errors import refusal
from marchproxy.dataplane.kernel.libbpf import MapCreateOptions, library
from marchproxy.dataplane.kernel.maps import Map
from marchproxy.dataplane.kernel.maptypes import MapType
from marchproxy.dataplane.kernel.runs import PlanTooLarge
from marchproxy.dataplane.kernel.settings import Settings
from marchproxy.policy.blocks import NOTHING_BLOCKED, BlockLayer, Blocks

_IMAGE_FLAGS = 1 << 10 | 1 << 12
"""BPF_F_MMAPABLE (kernel 5.5) | BPF_F_INNER_MAP (kernel 5.10), as the declaration in `bpf/maps.h`."""


class BlockTables:
    """The map `blocks`. First `prepare`, which may fail and changes nothing, then `switch` or `forget`.

    What an earlier daemon left there holds until the first `switch`.
    """

    def __init__(self, maps: Mapping[str, Map], settings: Settings, number_of: Callable[[str], int]) -> None:
        self._map = maps["blocks"]
        self._settings = settings
        self._number_of = number_of
        self._blocks: Blocks | None = None
        """None: an earlier daemon's."""
        self._prepared: dict[int, int | None] = {}
        """Descriptors of images by layer; None: the layer is empty."""
        self._wanted = NOTHING_BLOCKED
        self.sizes = [0] * layouts.BLOCK_LAYERS
        """Bytes of the image of each layer."""
        self._new_sizes = list(self.sizes)

    def prepare(self, blocks: Blocks) -> None:
        """Build the images of the layers that have changed. Raises `KernelError` or `PlanTooLarge`."""
        self.forget()
        self._wanted = blocks
        held = self._blocks
        for number, layer, before in (
            (layouts.BLOCK_SINGLE, blocks.single, None if held is None else held.single),
            (layouts.BLOCK_LISTS, blocks.lists, None if held is None else held.lists),
        ):
            if layer is not before and layer != before:
                self._prepare(number, layer)

    def switch(self) -> None:
        """Make what was prepared hold. Raises `KernelError` where the kernel has no memory left at all."""
        try:
            self._exchange()
        finally:
            if self._prepared:
                # After the images: what a packet finds clean in an old one is then of an old epoch.
                self._settings.blocks_changed()
        self._blocks = self._wanted
        self.forget()

    def _exchange(self) -> None:
        active = self._settings.block_layers
        for number, image in self._prepared.items():
            key = layouts.U32.pack(number)
            if image is None:
                active &= ~(1 << number)
                self._settings.change(block_layers=active)
                self._map.delete(key)
            else:
                self._map.set(key, layouts.U32.pack(image))
                active |= 1 << number
                self._settings.change(block_layers=active)
            self.sizes[number] = self._new_sizes[number]

    def forget(self) -> None:
        """Let go of prepared images; those in the map live on."""
        for image in self._prepared.values():
            if image is not None:
                with suppress(OSError):
                    os.close(image)
        self._prepared.clear()

    def _prepare(self, number: int, layer: BlockLayer) -> None:
        if not len(layer):
            self._prepared[number], self._new_sizes[number] = None, 0
            return
        numbers = [self._number_of(owner) for owner in layer.owners]
        if max(numbers) > layouts.BLOCK_OWNER_MAX:
            raise PlanTooLarge(
                f"more than {layouts.BLOCK_OWNER_MAX} mappings and blocks have been named",
                hint="run: marchproxy detach, then start the daemon again",
            )
        image = build_image(layer, numbers)
        self._prepared[number] = create_image(image)
        self._new_sizes[number] = len(image)


def create_image(image: bytes) -> int:
    """A new map that holds `image`, by its descriptor. Raises `KernelError`."""
    options = MapCreateOptions(map_flags=_IMAGE_FLAGS)
    lines = len(image) // layouts.BLOCK_LINE
    fd = int(
        library().bpf_map_create(
            MapType.ARRAY, b"block_image", layouts.U32.size, layouts.BLOCK_LINE, lines, ct.byref(options)
        )
    )
    if fd < 0:
        raise refusal(-fd, f"create a map of {len(image)} bytes for block lists")
    try:
        # Not by the batch call: copying a few megabytes at once takes a hundredth of its time.
        with mmap.mmap(fd, len(image), mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
            memory[:] = image
    except OSError as problem:
        os.close(fd)
        raise refusal(problem.errno or 0, "write a block list") from problem
    return fd
