"""The size of a tile: as large as the budget allows, by XLA's account of the compiled program."""

import bisect
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntkflow.kernels.blocks.call import Call

EVERYWHERE, APART = PartitionSpec(), PartitionSpec("device")
IN_FLIGHT = 2  # tiles per device: one at work while the one before it travels to the host


class Plan(NamedTuple):
    """The rows and columns of a tile and its programs, each for one tile on every device."""

    tile: tuple[int, int]
    pair: Any  # kernel(x1, x2); None where no tile lies off the diagonal
    own: Any  # kernel(x1, None); None where x2 is given


def make_plan(
    mesh: Mesh,
    budget: int,
    call: Call,
    arrays: Any,
    x1: Any,
    x2: Any,
    results: Any,
    begun: tuple[int, int] | None,
) -> Plan:
    """Find the tile for a budget in bytes; `begun` is that of a computation that goes on."""
    symmetric = x2 is None
    n1, n2 = x1.shape[0], (x1 if symmetric else x2).shape[0]
    fixed = sum(map(_bytes, arrays))
    per_row, per_column = _bytes(x1) / n1, _bytes(x1 if symmetric else x2) / n2
    per_pair = sum(map(_bytes, jax.tree.leaves(results))) / (n1 * n2)

    def shape(limit):
        return _even(n1, limit), _even(n2, limit)

    def least(limit):
        rows, columns = shape(limit)
        return per_row * rows + per_column * columns + per_pair * rows * columns

    def measure(tile):
        rows, columns = tile
        tile1, tile2 = _tile(mesh, x1, rows), _tile(mesh, x1 if symmetric else x2, columns)
        pair = own = None
        needed = 0
        if not symmetric or rows < n1:
            pair = _compile(mesh, call, arrays, tile1, tile2)
            needed = in_flight(pair)
        if symmetric and needed <= budget:
            own = _compile(mesh, call, arrays, tile1, None)
            needed = max(needed, in_flight(own))
        return needed, Plan(tile, pair, own)

    def in_flight(program):
        return fixed + IN_FLIGHT * (_peak(program) - fixed)

    if begun is not None:
        needed, plan = measure(begun)
        if needed > budget:
            raise ValueError(
                f"max_bytes is {budget}; expected at least {needed}, what the tiles need that the "
                f"folder was begun with, of {begun[0]} × {begun[1]} pairs of samples. Choose "
                "another folder for smaller ones."
            )
        return plan
    # Enough tiles for all devices; twice as many on a diagonal, so that no round is left half full.
    longest, count = max(n1, n2), mesh.size
    blocks = min(longest, 1 if count == 1 else 2 * count if symmetric else count)
    limits = sorted({-(-longest // b) for b in range(blocks, longest + 1)})
    return _largest(limits, least, lambda limit: measure(shape(limit)), fixed, budget)


def _largest(limits, least, measure, fixed, budget) -> Plan:
    """The plan of the largest tile that fits, or of one that fills half the budget, by bisection.

    Each guess takes memory to be proportional to that of arguments and results; the factor is
    measured on the guess before.
    """
    low, high, factor = -1, len(limits), 4.0 * IN_FLIGHT
    plan = None
    while high - low > 1:
        room = (0.9 * budget - fixed) / factor
        guess = bisect.bisect_right(limits, room, key=least) - 1
        if plan is not None and guess <= low:
            break
        guess = min(max(guess, low + 1), high - 1)
        needed, found = measure(limits[guess])
        factor = (needed - fixed) / least(limits[guess])
        if needed > budget:
            high = guess
            continue
        low, plan = guess, found
        if 2 * needed > budget:
            break
    if plan is None:
        raise ValueError(
            f"max_bytes is {budget}; expected at least {needed}, what {IN_FLIGHT} tiles of one "
            f"pair of samples need on each device, {fixed} of it for the kernel's other arguments."
        )
    return plan


def _compile(mesh, call, arrays, tile1, tile2):
    def one_device(arrays, x1, x2):
        x1, x2 = jax.tree.map(lambda x: x[0], (x1, x2))
        return jax.tree.map(lambda leaf: leaf[None], call.fill(arrays, x1, x2))

    # One program for all devices: a jit with its arguments on each would compile for each.
    program = jax.shard_map(
        one_device,
        mesh=mesh,
        in_specs=(EVERYWHERE, APART, APART),
        out_specs=APART,
        check_vma=False,
    )
    # Said to XLA, which otherwise drops arguments that are not used or places them elsewhere.
    everywhere, apart = (NamedSharding(mesh, spec) for spec in (EVERYWHERE, APART))
    compiled = jax.jit(program, in_shardings=(everywhere, apart, apart), keep_unused=True)
    return compiled.lower(arrays, tile1, tile2).compile()


def _peak(program) -> int:
    stats = program.memory_analysis()
    arguments, results = stats.argument_size_in_bytes, stats.output_size_in_bytes
    return arguments + results + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes


def _even(n: int, limit: int) -> int:
    """The rows of each block when n rows are cut into as few as `limit` allows."""
    return -(-n // -(-n // limit))


def _bytes(x: Any) -> int:
    return x.size * x.dtype.itemsize


def _tile(mesh: Mesh, x: Any, rows: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((mesh.size, rows, *x.shape[1:]), x.dtype)
