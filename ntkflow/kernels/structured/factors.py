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
# A number that is written, brought into another order of axes and read again takes about as much
# time as this many products within a matrix product: with 16 or 32 the transformer of
# benchmarks/empirical.py takes three times as long as with 64 or 128, and the other networks the
# same.
PRODUCTS_PER_NUMBER = 64
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
    forms, lengths = tuple(map(_form, left)), tuple(sizes(left).items())
    order = _cheapest(forms, keep, lengths, apart).order
    for i, j in order:
        rest = [f for k, f in enumerate(left) if k not in (i, j)]
        needed = {*keep, *itertools.chain.from_iterable(f.axes for f in rest)}
        left = [*rest, _pair(left[i], left[j], needed, keep)]
    (last,) = left
    return arranged(_written(last), keep).array


class _Form(NamedTuple):
    """What the costs of a factor depend on, but for lengths: its axes, and that of a OneHot."""

    axes: tuple[Axis, ...]
    hot: Axis | None = None


def _form(factor: AnyFactor) -> _Form:
    return _Form(factor.axes, factor.axis if isinstance(factor, OneHot) else None)


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
def _cheapest(forms: tuple[_Form, ...], keep, lengths, apart: Pairs) -> _Order:
    """All orders are tried: there are at most four factors, and 18 orders."""
    if len(forms) == 1:
        return _Order(0.0, ())
    best = None
    for i, j in itertools.combinations(range(len(forms)), 2):
        if (i, j) in apart:
            continue
        rest = [form for k, form in enumerate(forms) if k not in (i, j)]
        needed = {*keep, *itertools.chain.from_iterable(form.axes for form in rest)}
        both = dict.fromkeys((*forms[i].axes, *forms[j].axes))
        result = tuple(axis for axis in both if axis in needed)
        then = _cheapest((*rest, _Form(result)), keep, lengths, frozenset())
        time = _time(forms[i], forms[j], result, needed, dict(lengths), last=not rest) + then.time
        if best is None or time < best.time:
            best = _Order(time, ((i, j), *then.order))
    assert best is not None, "at least one pair is allowed"
    return best


def _time(a: _Form, b: _Form, result, needed, size: dict[Axis, int], last: bool) -> float:
    """The time of one product of two factors, in products within a matrix product."""

    def numbers(names):
        return math.prod(size[axis] for axis in names)

    written = 0 if last else numbers(result)
    if _is_comparison(a, b, needed) or _looks_up(a, b, needed) or _looks_up(b, a, needed):
        work = _PRODUCTS_PER_ENTRY * numbers(result)
    else:
        weight = 1 if _is_matrix_product(a.axes, b.axes, needed) else _PRODUCTS_PER_ENTRY
        work = weight * numbers({*a.axes, *b.axes})
        written += sum(numbers(form.axes) for form in (a, b) if form.hot is not None)
    return work + PRODUCTS_PER_NUMBER * written


def _pair(a: AnyFactor, b: AnyFactor, needed: set[Axis], keep: tuple[Axis, ...]) -> Factor:
    """The product of two factors, summed over the axes that nobody needs any more."""
    forms = _form(a), _form(b)
    if isinstance(a, OneHot) and isinstance(b, OneHot) and _is_comparison(*forms, needed):
        return _pair_of_places(a, b)
    for rows, table in ((a, b), (b, a)):
        if isinstance(rows, OneHot) and _looks_up(_form(rows), _form(table), needed):
            return _taken(rows, _written(table))
    a, b = (_reduced(_written(f), {*needed, *g.axes}) for f, g in ((a, b), (b, a)))
    shared = [axis for axis in a.axes if axis in b.axes]
    batch = [axis for axis in shared if axis in needed]
    summed = [axis for axis in shared if axis not in needed]
    free = [[axis for axis in f.axes if axis not in shared] for f in (a, b)]
    if any(axis in keep for axis in free[1]) and not any(axis in keep for axis in free[0]):
        a, b, free = b, a, free[::-1]  # what stays comes first: no copy for the product after this
    if not _is_matrix_product(a.axes, b.axes, needed):
        axes = (*batch, *free[0], *free[1], *summed)
        product = _aligned(a, axes) * _aligned(b, axes)
        array = product.sum(range(len(axes) - len(summed), len(axes))) if summed else product
        return Factor(array, axes[: len(axes) - len(summed)])
    left = _matrices(a, batch, free[0], summed)
    right = _matrices(b, batch, free[1], summed)
    axis, front = len(batch) + 1, tuple(range(len(batch)))
    array = jax.lax.dot_general(
        left,
        right,
        (((axis,), (axis,)), (front, front)),
        # On accelerators the default precision of a product of float32 matrices is lower.
        precision=jax.lax.Precision.HIGHEST,
    )
    length = {**sizes([a]), **sizes([b])}
    axes = (*batch, *free[0], *free[1])
    return Factor(array.reshape([length[axis] for axis in axes]), axes)


def _matrices(factor: Factor, batch: list[Axis], rows: list[Axis], columns: list[Axis]):
    """The array with one axis for all rows and one for all columns.

    Of products over more axes XLA copies one array to transpose it.
    """
    length = sizes([factor])
    shape = [math.prod(length[axis] for axis in axes) for axes in (rows, columns)]
    array = arranged(factor, (*batch, *rows, *columns)).array
    return array.reshape([*(length[axis] for axis in batch), *shape])


def _is_matrix_product(a: Iterable[Axis], b: Iterable[Axis], needed: set[Axis]) -> bool:
    """Whether something is summed, for several entries on both sides of it."""
    a, b = set(a), set(b)
    return bool((a & b) - needed) and bool(a - b) and bool(b - a)


def _is_comparison(a: _Form, b: _Form, needed: set[Axis]) -> bool:
    """Whether two OneHot meet along the axis of both."""
    return a.hot is not None and a.hot == b.hot and a.hot not in needed


def _looks_up(rows: _Form, table: _Form, needed: set[Axis]) -> bool:
    """Whether the product with a OneHot takes entries along the one axis that both have."""
    if rows.hot is None or table.hot is not None or rows.hot in needed:
        return False
    return set(rows.axes) & set(table.axes) == {rows.hot}


def _taken(rows: OneHot, table: Factor) -> Factor:
    """The entries of a table at places along an axis, and zeros where there is no place."""
    others = [axis for axis in table.axes if axis != rows.axis]
    array = arranged(table, (rows.axis, *others)).array
    places = rows.places.array
    taken = jnp.take(array, jnp.maximum(places, 0), axis=0, mode="clip")
    there = (places >= 0).reshape(*places.shape, *(1 for _ in others))
    return Factor(jnp.where(there, taken, 0), (*rows.places.axes, *others))


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
