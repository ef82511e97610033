"""Kernels of data that do not fit on a device: tiles of bounded memory, over the local devices."""

import bisect
import enum
import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ntkflow import checks

_EVERYWHERE, _APART = PartitionSpec(), PartitionSpec("device")
# How k(x2, x1) follows from k(x1, x2), by the number of axes: samples swap, and outputs with them.
_MIRROR = {2: (1, 0), 3: (1, 0, 2), 4: (1, 0, 3, 2)}
_IN_FLIGHT = 2  # tiles per device: one at work while the one before it travels to the host


def in_blocks(
    kernel: Callable[..., Any],
    *,
    max_bytes: int = 2**30,
    devices: int | Sequence[jax.Device] | None = None,
    progress: bool = False,
) -> Callable[..., Any]:
    """Compute a kernel tile by tile, in bounded memory, on all local devices at once.

    Tiles are about as large as `max_bytes` allows: candidates are compiled, and measured by XLA's
    own account of their arguments, results and temporaries. Any number of samples: all tiles have
    one shape, and those at the edge are filled up with samples whose entries are dropped. With
    x2=None tiles below the diagonal are mirrored, and those on it are kernel(x1, None); the
    result is exactly symmetric.

    Outside the budget are the data and the result, which lie in the host's memory, and the arrays
    that a kernel closes over, constants of its program. Pass those as arguments: in
    `functools.partial(kernel, params)` they are found, too.

    Build it once and call it often: programs are kept, for the shapes of the last calls.

    Args:
      kernel: a function with arguments named x1 and x2, among any others (params, a key), that
        returns an array (n1, n2, ...) or a pytree of them; each entry depends on its own pair of
        samples alone. Of the other arguments, arrays are handed to the program; all else, a
        number or a string, is a constant of it.
      max_bytes: bytes of memory on each device, for the other arguments and for two tiles: one at
        work, and one on its way to the host.
      devices: local devices to use, or how many; None takes all. CPU devices share one memory.
      progress: whether to show a bar on the standard error stream.

    Returns:
      A function with the arguments of `kernel` and with its result, as NumPy arrays; to be called
      outside of `jit`. It does not depend on tiles and devices beyond rounding.

    Raises:
      ValueError: `kernel` has no arguments x1 and x2, or a device is not local; and when called:
        one pair of samples needs more than `max_bytes`; samples are missing or NaN; the result
        has no leading axes (n1, n2), or, with x2=None, further axes that are not (o,) or (o, o).
      ImportError: `progress` without rich.

    Example:
      >>> def gram(x1, x2=None):
      ...     return x1 @ (x1 if x2 is None else x2).T
      >>> x = np.arange(30.0).reshape(10, 3)
      >>> bool((in_blocks(gram, max_bytes=2000)(x) == x @ x.T).all())
      True
    """
    function, given, named = kernel, (), {}
    if isinstance(kernel, functools.partial):
        function, given, named = kernel.func, kernel.args, kernel.keywords
    signature = _signature(function)
    budget = checks.positive_int("max_bytes", max_bytes)
    mesh = Mesh(np.array(_local_devices(devices)), ("device",))

    @functools.lru_cache(maxsize=16)
    def plan(call, arrays, x1, x2):
        return _plan(mesh, budget, call, arrays, x1, x2)

    def blocked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*given, *args, **{**named, **kwargs})
        x1, x2 = bound.arguments["x1"], bound.arguments.get("x2")
        x1, x2 = _on_host("x1", x1), None if x2 is None else _on_host("x2", x2)
        call, arrays = _split(function, bound)
        chosen = plan(call, *jax.tree.map(_abstract, (arrays, x1, x2)))
        return _compute(chosen, mesh, arrays, x1, x2, progress)

    return blocked


class _Slot(enum.Enum):
    """What stands for an array in a call."""

    X1 = enum.auto()
    X2 = enum.auto()
    OTHER = enum.auto()


class _Call(NamedTuple):
    """A call of the kernel without its arrays: hashable, what a program is kept for."""

    function: Callable[..., Any]
    structure: Any
    leaves: tuple[Any, ...]
    types: tuple[type, ...]  # 1, 1.0 and True are equal, and make different programs

    def fill(self, arrays: Iterable[Any], x1: Any, x2: Any) -> Any:
        others = iter(arrays)
        take = {_Slot.X1: lambda: x1, _Slot.X2: lambda: x2, _Slot.OTHER: lambda: next(others)}
        leaves = [take[leaf]() if isinstance(leaf, _Slot) else leaf for leaf in self.leaves]
        args, kwargs = jax.tree.unflatten(self.structure, leaves)
        return self.function(*args, **kwargs)


class _Plan(NamedTuple):
    """The rows of a tile and its programs, each for one tile on every device."""

    rows: tuple[int, int]
    pair: Any  # kernel(x1, x2); None where no tile lies off the diagonal
    own: Any  # kernel(x1, None); None where x2 is given
    results: Any  # the whole kernel, abstract


def _plan(mesh: Mesh, budget: int, call: _Call, arrays: Any, x1: Any, x2: Any) -> _Plan:
    symmetric = x2 is None
    n1, n2 = x1.shape[0], (x1 if symmetric else x2).shape[0]
    results = jax.eval_shape(call.fill, arrays, x1, x2)
    _check_results(results, n1, n2, symmetric)
    fixed = sum(map(_bytes, arrays))
    per_row, per_column = _bytes(x1) / n1, _bytes(x1 if symmetric else x2) / n2
    per_pair = sum(map(_bytes, jax.tree.leaves(results))) / (n1 * n2)

    def shape(limit):
        return _even(n1, limit), _even(n2, limit)

    def least(limit):
        rows, columns = shape(limit)
        return per_row * rows + per_column * columns + per_pair * rows * columns

    def measure(limit):
        rows, columns = shape(limit)
        tile1, tile2 = _tile(mesh, x1, rows), _tile(mesh, x1 if symmetric else x2, columns)
        pair = own = None
        needed = 0
        if not symmetric or rows < n1:
            pair = _compile(mesh, call, arrays, tile1, tile2)
            needed = in_flight(pair)
        if symmetric and needed <= budget:
            own = _compile(mesh, call, arrays, tile1, None)
            needed = max(needed, in_flight(own))
        return needed, _Plan((rows, columns), pair, own, results)

    def in_flight(program):
        return fixed + _IN_FLIGHT * (_peak(program) - fixed)

    # Enough tiles for all devices; twice as many on a diagonal, so that no round is left half full.
    longest, count = max(n1, n2), mesh.size
    blocks = min(longest, 1 if count == 1 else 2 * count if symmetric else count)
    limits = sorted({-(-longest // b) for b in range(blocks, longest + 1)})
    return _largest(limits, least, measure, fixed, budget)


def _largest(limits, least, measure, fixed, budget) -> _Plan:
    """The plan of the largest tile that fits, or of one that fills half the budget, by bisection.

    Each guess takes memory to be proportional to that of arguments and results; the factor is
    measured on the guess before.
    """
    low, high, factor = -1, len(limits), 4.0 * _IN_FLIGHT
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
            f"max_bytes is {budget}; expected at least {needed}, what {_IN_FLIGHT} tiles of one "
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
        in_specs=(_EVERYWHERE, _APART, _APART),
        out_specs=_APART,
        check_vma=False,
    )
    # Said to XLA, which otherwise drops arguments that are not used or places them elsewhere.
    everywhere, apart = (NamedSharding(mesh, spec) for spec in (_EVERYWHERE, _APART))
    compiled = jax.jit(program, in_shardings=(everywhere, apart, apart), keep_unused=True)
    return compiled.lower(arrays, tile1, tile2).compile()


def _peak(program) -> int:
    stats = program.memory_analysis()
    arguments, results = stats.argument_size_in_bytes, stats.output_size_in_bytes
    return arguments + results + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes


def _compute(plan: _Plan, mesh: Mesh, arrays: Any, x1: Any, x2: Any, progress: bool) -> Any:
    symmetric = x2 is None
    right = x1 if symmetric else x2
    count, apart = mesh.size, NamedSharding(mesh, _APART)
    arrays = jax.device_put(arrays, NamedSharding(mesh, _EVERYWHERE))
    whole = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), plan.results)

    def put(x, rows, blocks):
        blocks = blocks + blocks[-1:] * (count - len(blocks))  # idle devices repeat the last one
        indices = np.array(blocks)[:, None] * rows + np.arange(rows)[None, :]
        return jax.device_put(x[indices % len(x)], apart)

    def launch(pairs):
        rows, columns = zip(*pairs, strict=True)
        x1s = put(x1, plan.rows[0], rows)
        if symmetric and rows == columns:
            return plan.own(arrays, x1s, None)
        return plan.pair(arrays, x1s, put(right, plan.rows[1], columns))

    def collect(pairs, tiles):
        for result, leaf in zip(jax.tree.leaves(whole), jax.tree.leaves(tiles), strict=True):
            for tile, (i, j) in zip(np.asarray(leaf), pairs, strict=False):
                rows, columns = (
                    slice(block * size, min((block + 1) * size, len(x)))
                    for block, size, x in zip((i, j), plan.rows, (x1, right), strict=True)
                )
                tile = tile[: rows.stop - rows.start, : columns.stop - columns.start]
                result[rows, columns] = tile
                if symmetric and i != j:
                    result[columns, rows] = tile.transpose(_MIRROR[tile.ndim])
                elif symmetric and jnp.issubdtype(tile.dtype, jnp.inexact):
                    # XLA may round the two halves apart, though the kernel is symmetric.
                    result[rows, columns] = (tile + tile.transpose(_MIRROR[tile.ndim])) / 2

    rounds = list(_rounds(len(x1), len(right), plan.rows, symmetric, count))
    pending: deque = deque()
    for pairs in _track(rounds, progress):
        pending.append((pairs, launch(pairs)))
        if len(pending) == _IN_FLIGHT:
            collect(*pending.popleft())
    for launched in pending:
        collect(*launched)
    return whole


def _rounds(n1, n2, rows, symmetric, count) -> Iterator[list[tuple[int, int]]]:
    """Tiles that are computed at once, one per device, by one program."""
    high, wide = -(-n1 // rows[0]), -(-n2 // rows[1])
    groups = [[(i, j) for i in range(high) for j in range(i + 1 if symmetric else 0, wide)]]
    if symmetric:
        groups.append([(i, i) for i in range(high)])
    for group in groups:
        for start in range(0, len(group), count):
            yield group[start : start + count]


def _even(n: int, limit: int) -> int:
    """The rows of each block when n rows are cut into as few as `limit` allows."""
    return -(-n // -(-n // limit))


def _bytes(x: Any) -> int:
    return x.size * x.dtype.itemsize


def _tile(mesh: Mesh, x: Any, rows: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((mesh.size, rows, *x.shape[1:]), x.dtype)


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
    if isinstance(x, np.ndarray):
        return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=getattr(x, "weak_type", False))


def _signature(function: Any) -> inspect.Signature:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = inspect.Signature()
    if not {"x1", "x2"} <= set(signature.parameters):
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(
            f"kernel is {name}{signature}; expected a function with arguments named x1 and x2, "
            "e.g. lambda x1, x2: fully_connected_relu(x1, x2, depth=3), or empirical_ntk(apply)."
        )
    return signature


def _split(function: Callable[..., Any], bound: inspect.BoundArguments) -> tuple[_Call, tuple]:
    """The call, with slots for its arrays, and the arrays other than the samples."""
    bound.arguments.update(x1=_Slot.X1, x2=_Slot.X2)
    leaves, structure = jax.tree.flatten((bound.args, bound.kwargs))
    arrays = tuple(leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray))
    for array in arrays:
        _refuse_tracer("an argument", array)
    constants = tuple(
        _Slot.OTHER if isinstance(leaf, jax.Array | np.ndarray) else leaf for leaf in leaves
    )
    return _Call(function, structure, constants, tuple(map(type, constants))), arrays


def _on_host(name: str, x: Any) -> np.ndarray:
    _refuse_tracer(name, x)
    array = np.asarray(x)
    checks.same_length(**{name: array})
    # Here, and not by JAX alone: that would copy all data to a device.
    if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
        checks.finite(name, array)
    return array


def _refuse_tracer(name: str, x: Any) -> None:
    if not checks.is_concrete(x):
        raise ValueError(
            f"{name} is traced, or not on this host; expected numbers: a kernel in blocks is a "
            "loop in Python, to be called outside of jit, vmap and grad."
        )


def _check_results(results: Any, n1: int, n2: int, symmetric: bool) -> None:
    for leaf in jax.tree.leaves(results):
        if leaf.shape[:2] != (n1, n2):
            raise ValueError(
                f"kernel returned shape {leaf.shape} for {n1} and {n2} samples; expected "
                f"({n1}, {n2}, ...)."
            )
        if symmetric and (leaf.ndim > 4 or (leaf.ndim == 4 and leaf.shape[2] != leaf.shape[3])):
            raise ValueError(
                f"kernel returned shape {leaf.shape}; expected (n, n), (n, n, o) or (n, n, o, o), "
                "whose tiles can be mirrored. Pass x2 as well: nothing is mirrored then."
            )


def _local_devices(devices: int | Sequence[jax.Device] | None) -> list[jax.Device]:
    local = jax.local_devices()
    if devices is None:
        return local
    if isinstance(devices, int):
        chosen = local[:devices] if 0 < devices <= len(local) else []
    else:
        chosen = list(devices) if set(devices) <= set(local) else []
    if not chosen:
        raise ValueError(
            f"devices is {devices}; expected some of the {len(local)} local devices {local}, or "
            "how many of them."
        )
    return chosen


def _track(rounds: Sequence[Any], show: bool) -> Iterable[Any]:
    if not show:
        return rounds
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError as error:
        raise ImportError(f"Progress needs rich ({error}): pip install rich") from error
    return track(rounds, "Tiles of the kernel", console=Console(stderr=True))
