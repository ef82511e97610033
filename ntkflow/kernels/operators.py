"""Kernels as linear operators: products with vectors in bounded memory, over the local devices."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.empirical import Apply, output_shape, samples_of
from ntkflow.kernels.products import FunctionRule, NetworkRule, bound_arrays
from ntkflow.kernels.rows import APART, EVERYWHERE, Devices, device_mesh, padded
from ntkflow.parameters import Predicate, partition


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["arrays"],
    meta_fields=["rule", "vector_shape", "dtype"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class KernelOperator:
    """A symmetric positive semidefinite kernel matrix that is known by its products alone.

    Built by `ntk_operator` and `kernel_operator`. It is a pytree: hand it to jitted functions as
    an argument, and its data do not become constants of the program.

    Attributes:
      arrays: parameters and data, the leaves.
      rule: how products are computed, static.
      vector_shape: of the vectors it acts on, (n,), or (n, o) for a network of o outputs.
      dtype: of its products, float32 or float64.
    """

    arrays: Any
    rule: Any
    vector_shape: tuple[int, ...]
    dtype: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(N, N), with N = n or n · o: of the matrix that is never formed."""
        size = int(np.prod(self.vector_shape))
        return size, size

    def __matmul__(self, v: ArrayLike) -> jax.Array:
        """Compute Θ v, for `v` of `vector_shape`, or of (*vector_shape, k) for k vectors."""
        return _product(self, self.vectors("v", v))

    def cross(self, x_test: ArrayLike, v: ArrayLike) -> jax.Array:
        """Compute Θ(x_test, x) v, of shape (n_test, *v.shape[1:]): what coefficients v predict."""
        x_test = jnp.asarray(x_test)
        checks.same_length(x_test=x_test)
        checks.finite("x_test", x_test)
        x = self.arrays[-1]
        if x_test.shape[1:] != x.shape[1:]:
            expected = ", ".join(map(str, ("n_test", *x.shape[1:])))
            raise ValueError(f"x_test has shape {x_test.shape}; expected ({expected}).")
        return _cross(self, x_test, self.vectors("v", v))

    def diagonal(self) -> jax.Array:
        """Compute the diagonal of the matrix, of `vector_shape`; its sum is the trace, exactly."""
        return _diagonal(self)

    def columns(self, indices: ArrayLike) -> jax.Array:
        """Compute Θ(x, x[indices]), of shape (n, k), or (n, o, k, o) for o outputs."""
        return _columns(self, jnp.asarray(indices))

    def at_once(self, count: int) -> int:
        """How many of `count` vectors its byte budget allows under one `vmap`."""
        return self.rule.at_once(count)

    def shared(self, count: int) -> "KernelOperator":
        """The operator for `vmap` over `count` vectors, each with its part of the byte budget."""
        return dataclasses.replace(self, rule=self.rule.shared(count))

    def vectors(self, name: str, v: ArrayLike) -> jax.Array:
        """`v` in the operator's dtype, if its shape fits."""
        array = jnp.asarray(v)
        axes = len(self.vector_shape)
        if array.shape[:axes] != self.vector_shape or array.ndim > axes + 1:
            columns = ", ".join(map(str, (*self.vector_shape, "k")))
            raise ValueError(
                f"{name} has shape {array.shape}; expected {self.vector_shape}, or ({columns}) "
                "for k vectors."
            )
        checks.finite(name, array)
        return array.astype(self.dtype)


def ntk_operator(
    apply: Apply,
    params: Any,
    x: ArrayLike,
    *,
    trainable: Predicate | None = None,
    max_bytes: int = 2**28,
    devices: Devices = None,
) -> KernelOperator:
    """Build the empirical NTK as an operator: a `vjp` and a `jvp` per block of samples.

    Θ v = J (Jᵀ v), with Jᵀ v summed over blocks and devices, and J u block by block. Time: about
    that of three forward passes and one backward pass over the data. Memory beyond data,
    parameters and vectors: one block of activations, and some copies of the parameters.

    Args:
      apply: the network, `apply(params, x)` of shape (n, o), or (n,) for a scalar network. Each
        output may depend on its own sample alone.
      params: its parameters; they may be traced.
      x: inputs, shape (n, ...), any n. They are divided among the devices.
      trainable: as for `empirical_ntk`.
      max_bytes: bytes of memory on each device for one block, counted by what the backward pass
        keeps: three times that, and three copies of the parameters.
      devices: local devices to use, or how many; None takes all. Within `pmap` it must be 1.

    Returns:
      KernelOperator of vectors (n,) or (n, o), of the network's output dtype (float32 for lower
      ones).

    Raises:
      ValueError: as for `empirical_ntk`; `max_bytes` below the need of one sample.

    Example:
      >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> operator = ntk_operator(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)}, x)
      >>> (operator @ jnp.array([1.0, 0.0])).tolist()  # linear model: the Gram matrix of x
      [5.0, 11.0]
      >>> operator.diagonal().tolist(), operator.cross(jnp.eye(2), jnp.ones(2)).tolist()
      ([5.0, 25.0], [4.0, 6.0])
    """
    checks.network(apply)
    data = samples_of("x", x)
    n = len(data)
    output_shape(apply, params, data, "x")
    output: Any = jax.eval_shape(apply, params, data)
    selected, merge = partition(params, trainable)

    def kept(samples: int) -> int:
        """Bytes that wait for the backward pass, counted without computing anything."""
        block = jax.ShapeDtypeStruct((samples, *data.shape[1:]), data.dtype)
        pullback = lambda part, xs: jax.vjp(lambda p: apply(merge(p), xs), part)[1]  # noqa: E731
        return _bytes(jax.eval_shape(pullback, selected, block))

    per_sample, fixed = 3 * (kept(3) - kept(2) + _bytes(data) // n), 3 * _bytes(selected)
    budget = checks.positive_int("max_bytes", max_bytes)
    if fixed + per_sample > budget:
        raise ValueError(
            f"max_bytes is {budget}; expected at least {fixed + per_sample}: three copies of the "
            f"parameters, {fixed}, and the activations of one sample, {per_sample}."
        )
    mesh = device_mesh(devices)
    rule = NetworkRule(apply, trainable, mesh, n, output.dtype, budget, fixed, per_sample)
    if mesh is not None:
        params = jax.device_put(params, NamedSharding(mesh, EVERYWHERE))
        data = jax.device_put(padded(mesh, data), NamedSharding(mesh, APART))
    return KernelOperator(
        (params, data), rule, output.shape, jnp.promote_types(output.dtype, jnp.float32)
    )


def kernel_operator(
    kernel: Callable[..., jax.Array],
    x: ArrayLike,
    *,
    max_bytes: int = 2**28,
    devices: Devices = None,
) -> KernelOperator:
    """Build any kernel as an operator: tiles are computed, used for a product, and forgotten.

    Each product computes the tiles on and above the diagonal again, n²/2 entries; k vectors at
    once cost little more than one. Memory beyond data and vectors: one tile on each device.

    Args:
      kernel: `kernel(x1, x2)` of shape (n1, n2), symmetric, of which each entry depends on its own
        pair of samples alone; for the limit of a network,
        `lambda x1, x2: infinite_width(module)(x1, x2).ntk`. Arrays that it needs, such as
        parameters, are best bound by `functools.partial(kernel, params)`: they are found, and
        are no constants of the program. It is never called without x2: what x2=None would say
        of a sample and itself, as dropout does, is not seen.
      x: inputs, shape (n, ...), any n. Every device holds them all.
      max_bytes: bytes of memory on each device for one tile, by XLA's own account of a smaller one.
      devices: as for `ntk_operator`.

    Returns:
      KernelOperator of vectors (n,), of the kernel's dtype (float32 for lower ones).

    Raises:
      ValueError: the kernel returns another shape, or no single array; samples are missing or NaN;
        `max_bytes` below the need of one pair.

    Example:
      >>> operator = kernel_operator(lambda x1, x2: x1 @ x2.T, jnp.array([[1.0, 2.0], [3.0, 4.0]]))
      >>> (operator @ jnp.eye(2)).tolist()
      [[5.0, 11.0], [11.0, 25.0]]
    """
    x = jnp.asarray(x)
    n = checks.same_length(x=x)
    checks.finite("x", x)
    budget = checks.positive_int("max_bytes", max_bytes)
    if not callable(kernel):
        raise ValueError(f"kernel is {kernel!r}; expected a function kernel(x1, x2).")
    call, bound = bound_arrays(kernel)
    output: Any = jax.eval_shape(call.fill, bound, x, x)
    if getattr(output, "shape", None) != (n, n):
        raise ValueError(
            f"kernel returned {jax.tree.map(jnp.shape, output)} for {n} samples; expected one "
            f"array of shape ({n}, {n}). Of several kernels choose one, e.g. "
            "lambda x1, x2: kernel(x1, x2).ntk; a full NTK of several outputs is an ntk_operator."
        )
    rows = n
    if 64 * n * n * output.dtype.itemsize > budget:  # else a tile of all samples fits anyhow
        sample = jax.ShapeDtypeStruct((min(n, 128), *x.shape[1:]), x.dtype)
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), bound)
        tile = jax.jit(lambda *arrays: call.fill(*arrays))
        stats: Any = tile.lower(abstract, sample, sample).compile().memory_analysis()
        needed = stats.temp_size_in_bytes + stats.output_size_in_bytes
        # What is in proportion to rows alone is taken for the tile's: the estimate is from above.
        rows = int(min(n, (budget / needed) ** 0.5 * sample.shape[0]))
        if rows == 0:
            raise ValueError(
                f"max_bytes is {budget}; expected at least {needed // sample.shape[0] ** 2 + 1}, "
                "what one pair of samples needs."
            )
    mesh = device_mesh(devices)
    if mesh is not None:  # enough tiles on and above the diagonal to keep all devices busy
        rows = min(rows, -(-n // (2 * mesh.size)))
    rule = FunctionRule(call, mesh, rows)
    arrays = (bound, x)
    if mesh is not None:
        arrays = jax.device_put(arrays, NamedSharding(mesh, EVERYWHERE))
    return KernelOperator(arrays, rule, (n,), jnp.promote_types(output.dtype, jnp.float32))


@jax.jit
def _product(operator: KernelOperator, v: jax.Array) -> jax.Array:
    columns = v.reshape(*operator.vector_shape, -1)
    result = operator.rule.product(operator.arrays, None, columns)
    return result.reshape(v.shape).astype(operator.dtype)


@jax.jit
def _cross(operator: KernelOperator, x_test: jax.Array, v: jax.Array) -> jax.Array:
    columns = v.reshape(*operator.vector_shape, -1)
    result = operator.rule.product(operator.arrays, x_test, columns)
    return result.reshape(len(x_test), *v.shape[1:]).astype(operator.dtype)


@jax.jit
def _diagonal(operator: KernelOperator) -> jax.Array:
    return operator.rule.diagonal(operator.arrays).astype(operator.dtype)


@jax.jit
def _columns(operator: KernelOperator, indices: jax.Array) -> jax.Array:
    return operator.rule.columns(operator.arrays, indices).astype(operator.dtype)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
