"""Where the tiles of a kernel go: into the host's memory, or onto the devices."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Place:
    """Where tiles go. What outlives the process also knows which ones it has."""

    tile: tuple[int, int] | None = None  # the rows and columns of a tile, of those that are here
    finished = 0  # tiles that are here, the first ones in their order
    complete = False

    def begin(self, tile: tuple[int, int], tiles: int) -> None:
        """Hear how large the tiles will be, and how many."""

    def write(self, number: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Take entries of the result's array of that number."""
        raise NotImplementedError

    def done(self, tiles: int) -> None:
        """Hear that so many tiles more have been written, in all arrays."""

    def result(self) -> list[Any]:
        """All arrays of the result."""
        raise NotImplementedError


class Host(Place):
    """NumPy arrays in memory."""

    def __init__(self, results: Any):
        self.arrays = [np.empty(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(results)]

    def write(self, number: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        self.arrays[number][rows, columns] = values

    def result(self) -> list[Any]:
        return self.arrays


class Devices(Place):
    """Sharded arrays: each device's piece is filled in place."""

    def __init__(self, results: Any, devices: list[jax.Device]):
        self.leaves = jax.tree.leaves(results)
        self.shardings = [_sharding(leaf.shape, devices) for leaf in self.leaves]
        self.pieces = [
            {
                device: jnp.zeros(sharding.shard_shape(leaf.shape), leaf.dtype, device=device)
                for device in sharding.devices_indices_map(leaf.shape)
            }
            for leaf, sharding in zip(self.leaves, self.shardings, strict=True)
        ]

    def write(self, number: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        shape, pieces = self.leaves[number].shape, self.pieces[number]
        for device, index in self.shardings[number].devices_indices_map(shape).items():
            top, bottom, _ = index[0].indices(shape[0])
            left, right, _ = index[1].indices(shape[1])
            first, last = max(rows.start, top), min(rows.stop, bottom)
            start, stop = max(columns.start, left), min(columns.stop, right)
            if first >= last or start >= stop:
                continue
            part = values[
                first - rows.start : last - rows.start, start - columns.start : stop - columns.start
            ]
            part = jax.device_put(part, device)
            pieces[device] = _update(pieces[device], part, first - top, start - left)

    def result(self) -> list[Any]:
        return [
            jax.make_array_from_single_device_arrays(leaf.shape, sharding, list(pieces.values()))
            for leaf, sharding, pieces in zip(self.leaves, self.shardings, self.pieces, strict=True)
        ]


# The piece is given away and filled in place: without that each tile would copy it.
@jax.jit(donate_argnums=0)
def _update(piece: Any, part: Any, row: Any, column: Any) -> Any:
    return jax.lax.dynamic_update_slice(piece, part, (row, column) + (0,) * (piece.ndim - 2))


def _sharding(shape: tuple[int, ...], devices: list[jax.Device]) -> NamedSharding:
    """Even pieces on as many devices as can be, by rows if that is as good as any other way.

    JAX has no sharding whose pieces differ in size, and an array with padding is not the kernel.
    """
    count = len(devices)
    rows, columns = max(
        (
            (r, c)
            for r, c in itertools.product(range(1, count + 1), repeat=2)
            if r * c <= count and shape[0] % r == 0 and shape[1] % c == 0
        ),
        key=lambda grid: (grid[0] * grid[1], grid[0]),
    )
    mesh = Mesh(np.array(devices[: rows * columns]).reshape(rows, columns), ("rows", "columns"))
    return NamedSharding(mesh, PartitionSpec("rows", "columns"))
