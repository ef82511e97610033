"""Loops over blocks of rows, in bounded memory, that the local devices share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from ntkflow.devices import local_devices

EVERYWHERE, APART = PartitionSpec(), PartitionSpec("device")
Devices = int | Sequence[jax.Device] | None


def map_over_rows(
    mesh: Mesh | None, rows: int, function: Callable[..., jax.Array], shared: Any, x: jax.Array
) -> jax.Array:
    """function(shared, block) of every block of x; with devices the result may be longer than x."""

    def local(shared, x):
        size = even(len(x), rows)
        if size == len(x):
            return function(shared, x)
        block = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        result = jax.eval_shape(function, shared, block)

        def step(i, total):
            start, _ = block_rows(i, size, len(x))
            block = jax.lax.dynamic_slice_in_dim(x, start, size)
            return jax.lax.dynamic_update_slice_in_dim(total, function(shared, block), start, 0)

        total = jnp.zeros((len(x), *result.shape[1:]), result.dtype)
        return jax.lax.fori_loop(0, -(-len(x) // size), step, total)

    if mesh is None:
        return local(shared, x)
    return shard_map(local, mesh, (EVERYWHERE, APART), APART)(shared, padded(mesh, x))


def sum_over_rows(
    mesh: Mesh | None,
    rows: int,
    function: Callable[..., Any],
    shared: Any,
    x: jax.Array,
    weights: jax.Array,
) -> Any:
    """Σ function(shared, block, weights of the block), linear in the weights."""
    weights = jnp.pad(weights, [(0, len(x) - len(weights))] + [(0, 0)] * (weights.ndim - 1))

    def local(shared, x, weights):
        size = even(len(x), rows)
        if size == len(x):
            return function(shared, x, weights)

        def term(i):
            start, own = block_rows(i, size, len(x))
            block, w = (jax.lax.dynamic_slice_in_dim(a, start, size) for a in (x, weights))
            own = own.reshape(size, *(1,) * (w.ndim - 1))
            return function(shared, block, jnp.where(own, w, jnp.zeros_like(w)))

        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(term, 0))
        step = lambda i, total: jax.tree.map(jnp.add, total, term(i))  # noqa: E731
        return jax.lax.fori_loop(0, -(-len(x) // size), step, zero)

    if mesh is None:
        return local(shared, x, weights)
    summed = lambda *arguments: jax.lax.psum(local(*arguments), "device")  # noqa: E731
    specs = (EVERYWHERE, APART, APART)
    return shard_map(summed, mesh, specs, EVERYWHERE)(shared, x, weights)


def map_together(function: Callable[..., Any], xs: jax.Array, together: int) -> Any:
    """The function of every entry of xs, of so many at once."""
    if together == len(xs):
        return jax.vmap(function)(xs)
    # A batch of one would be a `vmap` all the same.
    return jax.lax.map(function, xs, batch_size=together if together > 1 else None)


def block_rows(block: Any, size: int, length: int) -> tuple[jax.Array, jax.Array]:
    """Where a block starts, and which of its rows are its own: the last one overlaps."""
    start = jnp.minimum(block * size, length - size)
    return start, start + jnp.arange(size) >= block * size


def even(length: int, limit: int) -> int:
    """The length of blocks, when there are as few of them as `limit` allows."""
    return -(-length // -(-length // limit))


def device_mesh(devices: Devices) -> Mesh | None:
    """None for one device: a program of its own may then be part of any other."""
    chosen = local_devices(devices)
    return None if len(chosen) == 1 else Mesh(np.array(chosen), ("device",))


def padded(mesh: Mesh, x: jax.Array) -> jax.Array:
    """Samples again, as many as it takes to give every device the same number."""
    length = -(-len(x) // mesh.size) * mesh.size
    return x if length == len(x) else x[jnp.arange(length) % len(x)]


def shard_map(function: Callable[..., Any], mesh: Mesh, specs: Any, out: Any) -> Any:
    # Loops start from zeros that are the same on every device, and do not stay so.
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
