"""Arrays with named axes, and the cheapest order in which to multiply several of them.

The product of factors, summed over the axes that are not kept, is a kernel; how many operations it
takes depends on which two are multiplied first. For one dense layer: h_i h_j and δ_i δ_j are two
Gram matrices, h_i δ_i is a Jacobian.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Axis = Any  # a name: any hashable thing
# A number written to memory and read again costs about as much time as this many products within
# a matrix product, on CPUs (some 10¹¹ products and 10¹⁰ numbers a second) and on accelerators.
PRODUCTS_PER_NUMBER = 16
# And a product outside of one, entry by entry, as much as these.
_PRODUCTS_PER_ENTRY = 8


class Factor(NamedTuple):
    """An array whose axes have names, each name once."""

    array: jax.Array
    axes: tuple[Axis, ...]

    def renamed(self, name: Callable[[Axis], Axis]) -> "Factor":
        """The same array under other names."""
        return self._replace(axes=tuple(map(name, self.axes)))


class OneHot(NamedTuple):
    """Ones at given places of a last axis, and zeros elsewhere: rows taken out of a table.

    Where two of them meet, places are compared and nothing is stored. A negative place is none.
    """

    places: Factor
    axis: Axis
    size: int
    dtype: Any

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (*self.places.axes, self.axis)

    def renamed(self, name: Callable[[Axis], Axis]) -> "OneHot":
        return self._replace(places=self.places.renamed(name), axis=name(self.axis))

    def written_out(self) -> Factor:
        """The array itself."""
        return Factor(jax.nn.one_hot(self.places.array, self.size, dtype=self.dtype), self.axes)


AnyFactor = Factor | OneHot
Pairs = frozenset[tuple[int, int]]


def sizes(factors: Iterable[AnyFactor]) -> dict[Axis, int]:
    """The length of every axis."""
    found: dict[Axis, int] = {}
    for factor in factors:
        if isinstance(factor, OneHot):
            found[factor.axis] = factor.size
            factor = factor.places
        found.update(zip(factor.axes, factor.array.shape, strict=True))
    return found


def multiply(
    factors: Iterable[AnyFactor], keep: tuple[Axis, ...], apart: Pairs = frozenset()
) -> jax.Array:
    """The product of factors, summed over all axes but `keep`, in the cheapest order.

    Args:
      factors: at most some four of them.
      keep: the axes of the result.
      apart: pairs of factors, by position, that may not be multiplied first.
    """
    left = list(factors)
    axes, lengths = tuple(f.axes for f in left), tuple(sizes(left).items())
    order = _cheapest(axes, keep, lengths, apart).order
    for i, j in order:
        rest = [f for k, f in enumerate(left) if k not in (i, j)]
        needed = {*keep, *itertools.chain.from_iterable(f.axes for f in rest)}
        left = [*rest, _pair(left[i], left[j], needed)]
    (last,) = left
    return arranged(_written(last), keep).array


def arranged(factor: Factor, axes: tuple[Axis, ...]) -> Factor:
    """Summed over the axes that are not wanted, the others in this order."""
    surplus = [i for i, axis in enumerate(factor.axes) if axis not in axes]
    array = factor.array.sum(surplus) if surplus else factor.array
    left = [axis for axis in factor.axes if axis in axes]
    return Factor(array.transpose([left.index(axis) for axis in axes]), axes)


class _Order(NamedTuple):
    time: float
    order: tuple[tuple[int, int], ...]


@functools.lru_cache(maxsize=4096)
def _cheapest(axes, keep, lengths, apart) -> _Order:
    """All orders are tried: there are at most four factors, and 18 orders."""
    if len(axes) == 1:
        return _Order(0.0, ())
    size = dict(lengths)

    def numbers(names):
        return math.prod(size[axis] for axis in names)

    best = None
    for i, j in itertools.combinations(range(len(axes)), 2):
        if (i, j) in apart:
            continue
        rest = [a for k, a in enumerate(axes) if k not in (i, j)]
        needed = {*keep, *itertools.chain.from_iterable(rest)}
        both = dict.fromkeys((*axes[i], *axes[j]))
        result = tuple(axis for axis in both if axis in needed)
        then = _cheapest((*rest, result), keep, lengths, frozenset())
        products = numbers(both)
        weight = 1 if _is_matrix_product(axes[i], axes[j], needed) else _PRODUCTS_PER_ENTRY
        written = numbers(result) if len(axes) > 2 else 0
        time = weight * products + PRODUCTS_PER_NUMBER * written + then.time
        if best is None or time < best.time:
            best = _Order(time, ((i, j), *then.order))
    assert best is not None, "at least one pair is allowed"
    return best


def _pair(a: AnyFactor, b: AnyFactor, needed: set[Axis]) -> Factor:
    """The product of two factors, summed over the axes that nobody needs any more."""
    if isinstance(a, OneHot) and isinstance(b, OneHot) and a.axis == b.axis not in needed:
        return _pair_of_places(a, b)
    a, b = (_reduced(_written(f), {*needed, *g.axes}) for f, g in ((a, b), (b, a)))
    shared = [axis for axis in a.axes if axis in b.axes]
    batch = [axis for axis in shared if axis in needed]
    summed = [axis for axis in shared if axis not in needed]
    free = [[axis for axis in f.axes if axis not in shared] for f in (a, b)]
    if not _is_matrix_product(a.axes, b.axes, needed):
        axes = (*batch, *free[0], *free[1], *summed)
        product = _aligned(a, axes) * _aligned(b, axes)
        array = product.sum(range(len(axes) - len(summed), len(axes))) if summed else product
        return Factor(array, axes[: len(axes) - len(summed)])
    # Two axes each: of more, XLA would copy the second array to transpose it.
    sides = []
    for factor, own in zip((a, b), free, strict=True):
        array = arranged(factor, (*batch, *own, *summed)).array
        lengths = [array.shape[: len(batch)], array.shape[len(batch) : len(batch) + len(own)]]
        sides.append((array.reshape(*lengths[0], math.prod(lengths[1]), -1), lengths))
    (left, (outer, rows)), (right, (_, columns)) = sides
    axis, front = len(batch) + 1, tuple(range(len(batch)))
    array = jax.lax.dot_general(
        left,
        right,
        (((axis,), (axis,)), (front, front)),
        # On accelerators the default precision of a product of float32 matrices is lower.
        precision=jax.lax.Precision.HIGHEST,
    )
    return Factor(array.reshape(*outer, *rows, *columns), (*batch, *free[0], *free[1]))


def _is_matrix_product(a: Iterable[Axis], b: Iterable[Axis], needed: set[Axis]) -> bool:
    """Whether something is summed, for several entries on both sides of it."""
    a, b = set(a), set(b)
    return bool((a & b) - needed) and bool(a - b) and bool(b - a)


def _pair_of_places(a: OneHot, b: OneHot) -> Factor:
    """Ones where both point to the same place."""
    names = tuple(dict.fromkeys((*a.places.axes, *b.places.axes)))
    one, two = _aligned(a.places, names), _aligned(b.places, names)
    return Factor(((one == two) & (one >= 0)).astype(a.dtype), names)


def _written(factor: AnyFactor) -> Factor:
    return factor.written_out() if isinstance(factor, OneHot) else factor


def _reduced(factor: Factor, needed: set[Axis]) -> Factor:
    return arranged(factor, tuple(axis for axis in factor.axes if axis in needed))


def _aligned(factor: Factor, axes: Iterable[Axis]) -> jax.Array:
    """The array with axes of length 1 where it has none of these."""
    own = arranged(factor, tuple(axis for axis in axes if axis in factor.axes))
    lengths = iter(own.array.shape)
    return jnp.reshape(own.array, [next(lengths) if a in own.axes else 1 for a in axes])
