"""Sums over positions and channels, of arrays that hold moments."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntkflow.kernels.infinite import views
from ntkflow.kernels.infinite.fields import Channels, Known, Mapped
from ntkflow.kernels.infinite.views import View


def summed(
    view: View, array: Array | None, axes: Sequence[int], shape: tuple[int, ...]
) -> Array | None:
    """Sum a moment of a node with positions of this shape over equal positions along `axes`."""
    if array is None or not axes:
        return array
    samples, here, there, kept = _names(view, len(shape), axes)
    whole = shape * 2 if view.full else shape
    array = jnp.broadcast_to(array, (*array.shape[: view.samples], *whole))
    return jnp.einsum(array, [*samples, *here, *there][: array.ndim], [*samples, *kept])


def inner_products(view: View, known: Known, axes: Sequence[int], dtype: Any) -> Array:
    """Σ x x' over the positions along `axes`: one product of matrices where none are kept."""
    samples, here, there, kept = _names(view, len(known.shape), axes)
    x, y = (
        jnp.broadcast_to(v, (len(v), *known.shape)).astype(dtype)
        for v in (known.of(view.left), known.of(view.right))
    )
    highest = jax.lax.Precision.HIGHEST  # accelerators compute in lower precision by default
    operands = (x, [samples[0], *here], y, [samples[-1], *there])
    return jnp.einsum(*operands, [*samples, *kept], precision=highest)


def _names(view: View, rank: int, axes: Sequence[int]) -> tuple[list[int], ...]:
    """Numbers for the axes of a moment: samples, positions left and right, and those to keep.

    Positions along `axes` are the same on the left and on the right, and all are in a view of
    equal positions.
    """
    samples = list(range(view.samples))
    here = [100 + i for i in range(rank)]
    there = [(200 if view.full and i not in axes else 100) + i for i in range(rank)]
    sides = (here, there) if view.full else (here,)
    return samples, here, there, [names[i] for names in sides for i in range(rank) if i not in axes]


def mean_over_channels(view: View, a: Channels, b: Channels, dtype: Any) -> Array:
    """The mean over the channels of a product of numbers."""
    x, y = a.of(view.left).astype(dtype), b.of(view.right).astype(dtype)
    n = max(x.shape[-1], y.shape[-1])
    x, y = (jnp.broadcast_to(v, (*v.shape[:-1], n)) for v in (x, y))

    def product(x, y):
        return views.left(view, x, len(b.shape)) * views.right(view, y, len(a.shape))

    return jnp.mean(jax.vmap(product, in_axes=-1)(x, y), axis=0)


def mapped(
    view: View,
    node: Mapped,
    arrays: Sequence[Array | None],
    side: int,
    dtype: Any,
    *,
    right: bool = False,
) -> Array | None:
    """Apply the map of a node to the last axes of arrays, the positions of its inputs.

    Args:
      view: what the axes before these are.
      node: whose map it is.
      arrays: one for each of the node's inputs.
      side: the data set whose numbers the map takes.
      dtype: of the result.
      right: whether the numbers are those of the right samples.
    """
    present = [a for a in arrays if a is not None]
    if not present:
        return None
    rank = len(node.map.shapes[0])
    batch = jnp.broadcast_shapes(*(a.shape[: a.ndim - rank] for a in present))
    # Where an array is constant along positions, a map over these must see them all.
    whole = [
        jnp.broadcast_to(jnp.zeros((), dtype) if a is None else a, (*batch, *shape))
        for a, shape in zip(arrays, node.map.shapes, strict=True)
    ]
    if node.known is not None:
        known = node.known.of(side).astype(dtype)
        samples = [1] * view.samples
        samples[-1 if right else 0] = len(known)
        others = (1,) * (len(batch) - view.samples)
        whole.append(known.reshape(*samples, *others, *known.shape[1:]))
    return node.map.function(*whole)
