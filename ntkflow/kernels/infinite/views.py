"""Arrays of moments: which entries they hold, and how their axes fit together.

A moment of two nodes with positions P and Q has the axes

    samples    (n,) for each sample with itself, (n1, n2) for all pairs
    positions  (*P,) for equal positions, (*P, *Q) for all pairs

each of size 1 where the moment is constant along it. None stands for a moment that is zero.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class View(NamedTuple):
    """Which entries of a moment are asked for.

    Attributes:
      left, right: the data sets, 0 for x1 and 1 for x2, of the two samples.
      paired: each sample with itself; else all pairs.
      full: all pairs of positions; else equal ones.
    """

    left: int
    right: int
    paired: bool
    full: bool

    @property
    def samples(self) -> int:
        """How many axes the samples have."""
        return 1 if self.paired else 2


def own(side: int) -> View:
    """Each sample with itself, at equal positions: variances."""
    return View(side, side, paired=True, full=False)


def left(view: View, array: Any, other: int) -> Any:
    """Numbers (n, *P) of the left samples, in the axes of the view; `other` is the rank of Q."""
    if array is None:
        return None
    samples = (len(array),) if view.paired else (len(array), 1)
    return array.reshape(*samples, *array.shape[1:], *((1,) * other if view.full else ()))


def right(view: View, array: Any, other: int) -> Any:
    """Numbers (n, *Q) of the right samples, in the axes of the view; `other` is the rank of P."""
    if array is None:
        return None
    samples = (len(array),) if view.paired else (1, len(array))
    return array.reshape(*samples, *((1,) * other if view.full else ()), *array.shape[1:])


def total(arrays: Iterable[Array | None]) -> Array | None:
    """The sum of arrays that broadcast, zeros left out."""
    present = [array for array in arrays if array is not None]
    return functools.reduce(jnp.add, _aligned(present)) if present else None


def product(arrays: Iterable[Array | None]) -> Array | None:
    """The product of arrays that broadcast; zero where one is."""
    present = list(arrays)
    if any(array is None for array in present):
        return None
    return functools.reduce(jnp.multiply, _aligned(present))


def scaled(factor: float, array: Array | None) -> Array | None:
    """A number times an array."""
    if array is None or factor == 0:
        return None
    return array if factor == 1 else factor * array


def _aligned(arrays):
    assert len({a.ndim for a in arrays}) <= 1, [a.shape for a in arrays]
    return arrays


def swap(view: View, array: Array | None, first: int, second: int) -> Array | None:
    """Axes (samples, first positions, second positions) to (samples, second, first)."""
    if array is None:
        return None
    s = view.samples
    order = (*range(s), *range(s + first, s + first + second), *range(s, s + first))
    return array.transpose(order)


def diagonal(
    view: View, array: Array | None, first: tuple[int, ...], second: tuple[int, ...]
) -> Array | None:
    """Equal positions of all pairs of positions of shapes `first` and `second`.

    Where one of the two has size 1, its position is any: the other's is kept.
    """
    if array is None:
        return None
    s, rank = view.samples, len(first)
    array = jnp.broadcast_to(array, (*array.shape[:s], *first, *second))
    for k, (n, m) in enumerate(zip(first, second, strict=True)):
        here, there = s + k, s + rank  # axes taken before have left their places on the right
        if n > 1 and m > 1:
            taken = jnp.diagonal(array, axis1=here, axis2=there)
        else:
            single, other = (here, there) if n == 1 else (there, here)
            taken = jnp.moveaxis(jnp.squeeze(array, single), other - (single < other), -1)
        array = jnp.moveaxis(taken, -1, here)
    return array


def equal_positions(view: View, shape: tuple[int, ...], dtype) -> Array:
    """1 where positions are equal, 0 elsewhere."""
    samples = (1,) * view.samples
    if not view.full:
        return jnp.ones((*samples, *(1 for _ in shape)), dtype)
    return jnp.eye(math.prod(shape), dtype=dtype).reshape(*samples, *shape, *shape)


def equal_samples(view: View, n: int, ranks: tuple[int, int], dtype) -> Array:
    """1 where samples are equal, for two views of one data set."""
    rank = sum(ranks) if view.full else ranks[0]
    if view.paired:
        return jnp.ones((1,) * (1 + rank), dtype)
    return jnp.eye(n, dtype=dtype).reshape(n, n, *(1,) * rank)


def exact_diagonal(view: View, array: Array, variance: Array, rank: int) -> Array:
    """Put variances where a sample and position meet themselves: computed by another product,
    covariances differ from them by rounding, and √(1 − ρ²) turns that into √rounding.

    `variance` has the axes of the view, on the diagonal at least.
    """
    pairs = [] if view.paired else [(0, 1)]
    if view.full:
        pairs += [(view.samples + i, view.samples + rank + i) for i in range(rank)]
    if not pairs:
        return jnp.broadcast_to(variance, jnp.broadcast_shapes(array.shape, variance.shape))
    if any(array.shape[i] != array.shape[j] for i, j in pairs):
        return array
    equal = functools.reduce(
        jnp.logical_and,
        [
            jax.lax.broadcasted_iota(jnp.int32, array.shape, i)
            == jax.lax.broadcasted_iota(jnp.int32, array.shape, j)
            for i, j in pairs
        ],
    )
    return jnp.where(equal, variance, array)


def stored(broken: Array, *arrays: Array) -> tuple[Array, ...]:
    """The arrays, computed once, at this point of the program.

    XLA would fuse a layer into all that reads it, and compute it anew for each: three layers of
    1000 × 1000 take three times as long, six layers nine times, and compiling takes as much more
    (benchmarks/neural_tangents.py). Nothing is fused across a branch.

    Args:
      broken: a boolean that is false for valid inputs, which XLA cannot know; where it is true the
        results are NaN.
      arrays: what is computed here.
    """
    return jax.lax.cond(broken, lambda *xs: tuple(x * jnp.nan for x in xs), lambda *xs: xs, *arrays)
