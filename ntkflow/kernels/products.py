"""The products of a kernel operator: by tiles of a kernel, and by J Jᵀ of a network."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ntkflow.kernels.blocks.call import Call, Slot, without_arrays
from ntkflow.kernels.empirical import Apply, empirical_ntk, ntk_diagonal
from ntkflow.kernels.linearized import linearized
from ntkflow.kernels.rows import (
    APART,
    EVERYWHERE,
    block_rows,
    even,
    map_over_rows,
    map_together,
    shard_map,
    sum_over_rows,
)
from ntkflow.parameters import Predicate, partition


def bound_arrays(kernel: Callable[..., Any]) -> tuple[Call, tuple[Any, ...]]:
    """kernel(x1, x2) as a call, and the arrays that a `functools.partial` is bound to."""
    function: Any = kernel
    given: tuple[Any, Any] = ((), {})
    if isinstance(function, functools.partial):
        function, given = function.func, (function.args, function.keywords)
    args, keywords = given
    return without_arrays(function, (*args, Slot.X1, Slot.X2), keywords)


class NetworkRule(NamedTuple):
    """Θ = J Jᵀ. Arrays: the parameters, and the samples, filled up to divide among the devices."""

    apply: Apply
    trainable: Predicate | None
    mesh: Mesh | None
    samples: int
    output_dtype: Any
    budget: int
    fixed: int
    per_sample: int

    def at_once(self, count: int) -> int:
        """How many vectors fit in the budget together, with blocks that are not tiny."""
        least = self.fixed + self.per_sample * min(self.samples, 64)
        return even(count, max(1, self.budget // least))

    def shared(self, count: int) -> "NetworkRule":
        """For `count` vectors under `vmap`, each with its part of the budget."""
        return self._replace(budget=self.budget // count)

    @property
    def rows(self) -> int:
        return max(1, (self.budget - self.fixed) // self.per_sample)

    def product(self, arrays: Any, x_test: jax.Array | None, v: jax.Array) -> jax.Array:
        params, x = arrays
        count = v.shape[-1]
        together = self.at_once(count)
        rows, n_test = self.shared(together).rows, self.samples if x_test is None else len(x_test)

        def pull(params, block, weights):
            selected, merge = partition(params, self.trainable)
            return linearized(lambda part: self.apply(merge(part), block), selected).pull(weights)

        def push(shared, block):
            params, tangent = shared
            selected, merge = partition(params, self.trainable)
            return linearized(lambda part: self.apply(merge(part), block), selected).push(tangent)

        def one(v):
            tangent = sum_over_rows(self.mesh, rows, pull, params, x, v.astype(self.output_dtype))
            target = x if x_test is None else x_test
            return map_over_rows(self.mesh, rows, push, (params, tangent), target)[:n_test]

        if count == 1:
            return one(v[..., 0])[..., None]
        return jnp.moveaxis(map_together(one, jnp.moveaxis(v, -1, 0), together), 0, -1)

    def diagonal(self, arrays: Any) -> jax.Array:
        params, x = arrays
        entries = ntk_diagonal(self.apply, outputs="diagonal", trainable=self.trainable)
        return map_over_rows(self.mesh, self.rows, entries, params, x)[: self.samples]

    def columns(self, arrays: Any, indices: jax.Array) -> jax.Array:
        params, x = arrays
        kernel = empirical_ntk(self.apply, trainable=self.trainable)
        chosen = x[indices]
        entries = jax.eval_shape(kernel, params, chosen[:1], chosen)  # one row, (1, k, o, o)
        per_row = 4 * entries.size * entries.dtype.itemsize
        rows = max(1, min(self.rows, self.budget // per_row))

        def call(shared, block):
            # (n, k, o, o) → (n, o, k, o)
            theta = kernel(shared[0], block, shared[1])
            return theta if theta.ndim == 2 else theta.transpose(0, 2, 1, 3)

        return map_over_rows(self.mesh, rows, call, (params, chosen), x)[: self.samples]


class FunctionRule(NamedTuple):
    """Tiles of kernel(x1, x2). Arrays: those that the kernel is bound to, and the samples."""

    call: Call
    mesh: Mesh | None
    tile: int

    def at_once(self, count: int) -> int:
        return count

    def shared(self, count: int) -> "FunctionRule":
        del count  # a tile serves all vectors
        return self

    def product(self, arrays: Any, x_test: jax.Array | None, v: jax.Array) -> jax.Array:
        bound, x = arrays
        symmetric, left = x_test is None, x if x_test is None else x_test
        rows, columns = even(len(left), self.tile), even(len(x), self.tile)
        high, wide = -(-len(left) // rows), -(-len(x) // columns)
        pairs = [(i, j, 1) for i in range(high) for j in range(i if symmetric else 0, wide)]
        count = 1 if self.mesh is None else self.mesh.size
        pairs += [(0, 0, 0)] * (-len(pairs) % count)  # idle devices repeat a tile without weight

        def local(pairs, bound, left, x, v):
            def step(total, pair):
                i, j, weight = pair
                rows1, own1 = block_rows(i, rows, len(left))
                rows2, own2 = block_rows(j, columns, len(x))
                take = jax.lax.dynamic_slice_in_dim
                tile = self.call.fill(bound, take(left, rows1, rows), take(x, rows2, columns))
                own1, own2 = ((own & (weight > 0)).astype(v.dtype)[:, None] for own in (own1, own2))
                total = _add(total, rows1, own1 * _dot(tile, own2 * take(v, rows2, columns)))
                if symmetric:
                    mirrored = own2 * _dot(tile.T, own1 * take(v, rows1, rows))
                    total = _add(total, rows2, jnp.where(i == j, 0.0, mirrored))
                return total, None

            total = jnp.zeros((len(left), v.shape[1]), v.dtype)
            return jax.lax.scan(step, total, pairs)[0]

        table = jnp.array(pairs)
        if self.mesh is None:
            return local(table, bound, left, x, v)
        summed = lambda *arguments: jax.lax.psum(local(*arguments), "device")  # noqa: E731
        specs = (APART, *(EVERYWHERE,) * 4)
        return shard_map(summed, self.mesh, specs, EVERYWHERE)(table, bound, left, x, v)

    def diagonal(self, arrays: Any) -> jax.Array:
        def entries(bound, block):
            return jax.vmap(lambda one: self.call.fill(bound, one[None], one[None])[0, 0])(block)

        return map_over_rows(self.mesh, self.tile, entries, *arrays)[: len(arrays[-1])]

    def columns(self, arrays: Any, indices: jax.Array) -> jax.Array:
        bound, x = arrays
        rows = max(1, self.tile**2 // len(indices))
        call = lambda shared, block: self.call.fill(shared[0], block, shared[1])  # noqa: E731
        return map_over_rows(self.mesh, rows, call, (bound, x[indices]), x)[: len(x)]


def _add(total: jax.Array, start: jax.Array, part: jax.Array) -> jax.Array:
    before = jax.lax.dynamic_slice_in_dim(total, start, len(part))
    return jax.lax.dynamic_update_slice_in_dim(total, before + part.astype(total.dtype), start, 0)


def _dot(tile: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.matmul(tile, v, precision=jax.lax.Precision.HIGHEST)
