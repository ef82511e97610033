"""All tiles of a kernel: launched in rounds, one on each device, and brought to their place."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ntkflow.kernels.blocks.places import Place
from ntkflow.kernels.blocks.plan import APART, EVERYWHERE, IN_FLIGHT, Plan

# How k(x2, x1) follows from k(x1, x2), by the number of axes: samples swap, and outputs with them.
_MIRROR = {2: (1, 0), 3: (1, 0, 2), 4: (1, 0, 3, 2)}


def compute(
    plan: Plan, mesh: Mesh, arrays: Any, x1: Any, x2: Any, place: Place, progress: bool
) -> None:
    """Compute the tiles that are not at their place yet, and bring them there."""
    symmetric = x2 is None
    right = x1 if symmetric else x2
    count, apart = mesh.size, NamedSharding(mesh, APART)
    arrays = jax.device_put(arrays, NamedSharding(mesh, EVERYWHERE))

    def put(x, rows, blocks):
        blocks = blocks + blocks[-1:] * (count - len(blocks))  # idle devices repeat the last one
        indices = np.array(blocks)[:, None] * rows + np.arange(rows)[None, :]
        return jax.device_put(x[indices % len(x)], apart)

    def launch(pairs):
        rows, columns = zip(*pairs, strict=True)
        x1s = put(x1, plan.tile[0], rows)
        if symmetric and rows == columns:
            return plan.own(arrays, x1s, None)
        return plan.pair(arrays, x1s, put(right, plan.tile[1], columns))

    def collect(pairs, tiles):
        for number, leaf in enumerate(jax.tree.leaves(tiles)):
            for tile, (i, j) in zip(np.asarray(leaf), pairs, strict=False):
                rows, columns = (
                    slice(block * size, min((block + 1) * size, len(x)))
                    for block, size, x in zip((i, j), plan.tile, (x1, right), strict=True)
                )
                tile = tile[: rows.stop - rows.start, : columns.stop - columns.start]
                if symmetric and i == j and jnp.issubdtype(tile.dtype, jnp.inexact):
                    # XLA may round the two halves apart, though the kernel is symmetric.
                    tile = (tile + tile.transpose(_MIRROR[tile.ndim])) / 2
                place.write(number, rows, columns, tile)
                if symmetric and i != j:
                    place.write(number, columns, rows, tile.transpose(_MIRROR[tile.ndim]))
        place.done(len(pairs))
        return len(pairs)

    pairs = _pairs(len(x1), len(right), plan.tile, symmetric)
    place.begin(plan.tile, len(pairs))
    pending: deque = deque()
    with _bar(len(pairs), place.finished, progress) as advance:
        for together in _rounds(pairs[place.finished :], symmetric, count):
            pending.append((together, launch(together)))
            if len(pending) == IN_FLIGHT:
                advance(collect(*pending.popleft()))
        for launched in pending:
            advance(collect(*launched))


def _pairs(n1: int, n2: int, tile: tuple[int, int], symmetric: bool) -> list[tuple[int, int]]:
    """The tiles in the order in which they are computed, whatever the devices."""
    high, wide = -(-n1 // tile[0]), -(-n2 // tile[1])
    pairs = [(i, j) for i in range(high) for j in range(i + 1 if symmetric else 0, wide)]
    return pairs + [(i, i) for i in range(high)] if symmetric else pairs


def _rounds(pairs, symmetric, count) -> Iterator[list[tuple[int, int]]]:
    """Tiles that are computed at once, one per device, by one program."""
    apart = [(i, j) for i, j in pairs if i != j or not symmetric]
    for group in (apart, pairs[len(apart) :]):
        for start in range(0, len(group), count):
            yield group[start : start + count]


@contextlib.contextmanager
def _bar(total: int, completed: int, show: bool) -> Iterator[Callable[[int], None]]:
    """Give `advance(tiles)`, which moves a bar; in a log, where none can move, it stands once."""
    if not show:
        yield lambda tiles: None
        return
    try:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress
    except ImportError as error:
        raise ImportError(f"Progress needs rich ({error}): pip install rich") from error
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("Tiles of the kernel", total=total, completed=completed)
        yield lambda tiles: bar.advance(task, tiles)
