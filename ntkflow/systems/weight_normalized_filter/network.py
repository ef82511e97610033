"""f(Z) = Σ_i a_i σ(v·Z_i)/‖v‖: one filter for all patches, ReLU, and an output layer.

The network of Du (2019), chapter 5, with weight normalization and the loss ½ E(f − f*)².
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.layers import ball, sphere
from ntkflow.systems.weight_normalized_filter.arguments import check, direction, one_number, vector
from ntkflow.training.losses import squared_loss

Variables = Mapping[str, Any]


class Teacher(NamedTuple):
    """The network that is to be recovered, f*(Z) = Σ_i a*_i σ(w*·Z_i), without normalization.

    Attributes:
      filter: w*, shape (p,), not 0.
      output: a*, shape (k,), not 0.
    """

    filter: jax.Array
    output: jax.Array


class WeightNormalizedFilter(nn.Module):
    """Two-layer convolutional network with weight normalization and patches that do not overlap.

    f(Z) = Σ_i a_i σ(v·Z_i)/‖v‖, with v uniform on the unit sphere and a uniform in a ball. Both
    train; f does not depend on ‖v‖, which grows along a run all the same.

    Attributes:
      radius: of the ball that a is drawn from; Theorem 5.4 takes |1ᵀa*|‖w*‖/√k. 0 is a = 0.
      param_dtype: of both leaves, "filter" v (p,) and "output" a (k,); float follows JAX.

    Raises:
      ValueError: the radius is negative or not one number, Z is not of shape (n, k, p), or not of
        the k and p that the weights were drawn for.

    Example:
      >>> module = WeightNormalizedFilter(radius=0.5)
      >>> variables = module.init(jax.random.key(0), jnp.ones((1, 4, 3)))
      >>> jax.tree.map(jnp.shape, variables["params"])
      {'filter': (3,), 'output': (4,)}
      >>> module.apply(variables, jnp.ones((5, 4, 3))).shape
      (5,)

    Reference: Du (2019), "Gradient Descent for Non-convex Problems in Modern Machine Learning",
    equation (5.1) and Theorem 5.4.
    """

    radius: Any = 1.0
    param_dtype: Any = float

    @nn.compact
    def __call__(self, z: ArrayLike) -> jax.Array:
        z = patches(z)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        shared = self.param("filter", sphere(), (z.shape[2],), dtype)
        output = self.param("output", ball(self.radius), (z.shape[1],), dtype)
        return _forward(shared, output, z)


def make_teacher(
    key: jax.Array, k: int, p: int, ratio: ArrayLike, norm: ArrayLike = 1.0, dtype: Any = float
) -> Teacher:
    """Draw a teacher with ‖w*‖ = 1, ‖a*‖ = norm, (1ᵀa*)²/‖a*‖² = ratio and 1ᵀa* ≥ 0.

    a* = norm (√(ratio/k) 1/√k + √(1 − ratio/k) u), with u uniform on the unit sphere orthogonal to
    1, and w* uniform on the unit sphere. A run's law depends on a* through norm and ratio alone.

    Args:
      key: PRNG key.
      k: number of patches.
      p: entries of the filter.
      ratio: (1ᵀa*)²/‖a*‖², in [0, k], for k = 1 it is 1; may be traced.
      norm: ‖a*‖ > 0; may be traced.
      dtype: of both; float follows JAX.

    Returns:
      The teacher.

    Raises:
      ValueError: k or p is no whole number greater than 0, the ratio is out of its range, the norm
        is not positive.

    Example:
      >>> teacher = make_teacher(jax.random.key(0), k=4, p=3, ratio=1.0, norm=2.0)
      >>> total, square = teacher.output.sum(), jnp.sum(teacher.output**2)
      >>> round(float(square), 6), round(float(total**2 / square), 6)
      (4.0, 1.0)

    Reference: Du (2019), section 5.5.2.
    """
    k, p = checks.positive_int("k", k), checks.positive_int("p", p)
    one_number(ratio=ratio, norm=norm)
    check(ratio=ratio, norm=norm)
    if checks.is_concrete(ratio):
        given = np.asarray(ratio)
        if given > k or (k == 1 and given != 1):
            expected = f"a number in [0, {k}]" if k > 1 else "1"
            raise ValueError(
                f"ratio is {ratio}; expected {expected}: (1ᵀa*)² ≤ k ‖a*‖² with k = {k} patches."
            )
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    for_filter, for_output = jax.random.split(key)
    shared = sphere()(for_filter, (p,), dtype)
    if k == 1:
        return Teacher(shared, jnp.asarray(norm, dtype)[None])
    across = jax.random.normal(for_output, (k,), dtype)
    for _ in range(2):  # once leaves a sum of the size of rounding in a long vector
        across = across - jnp.mean(across)
    across = across / jnp.linalg.norm(across)
    share = jnp.asarray(ratio, dtype) / k
    output = jnp.sqrt(share / k) + jnp.sqrt(jnp.maximum(1 - share, 0)) * across
    return Teacher(shared, jnp.asarray(norm, dtype) * output)


def draw_patches(key: jax.Array, n: int, k: int, p: int, dtype: Any = float) -> jax.Array:
    """Draw n samples of k patches with p independent standard normal entries, shape (n, k, p).

    Raises:
      ValueError: n, k or p is no whole number greater than 0.

    Example:
      >>> draw_patches(jax.random.key(0), n=5, k=4, p=3).shape
      (5, 4, 3)

    Reference: Du (2019), section 5.1.
    """
    shape = tuple(checks.positive_int(*item) for item in (("n", n), ("k", k), ("p", p)))
    return jax.random.normal(key, shape, jax.dtypes.canonicalize_dtype(dtype))


def predict(variables: Variables, z: ArrayLike) -> jax.Array:
    """Compute f(Z), shape (n,), as `WeightNormalizedFilter.apply` does."""
    return _forward(*weights(variables), patches(z))


def teacher_outputs(teacher: Teacher, z: ArrayLike) -> jax.Array:
    """Compute f*(Z) = Σ_i a*_i σ(w*·Z_i), shape (n,).

    Example:
      >>> teacher = Teacher(jnp.array([2.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> teacher_outputs(teacher, jnp.array([[[3.0, 1.0], [1.0, 5.0]]])).tolist()
      [4.0]

    Reference: Du (2019), section 5.1.
    """
    teacher, z = check_teacher(teacher), patches(z)
    _check_patches(teacher.filter, teacher.output, z)
    return _combine(teacher.filter, teacher.output, z)


def sampled_loss(variables: Variables, data: tuple[Any, Any]) -> jax.Array:
    """Compute ½ mean (f(Z) − y)² over samples, an estimate of (5.2) where y = f*(Z).

    Args:
      variables: of `WeightNormalizedFilter`.
      data: (z, y), shapes (n, k, p) and (n,), as `descend` takes them, whole or in batches.

    Returns:
      A scalar.

    Raises:
      ValueError: the shapes do not fit.

    Example:
      >>> teacher = make_teacher(jax.random.key(0), k=4, p=3, ratio=1.0)
      >>> z = draw_patches(jax.random.key(1), n=5, k=4, p=3)
      >>> same = {"params": {"filter": 2 * teacher.filter, "output": teacher.output}}
      >>> round(float(sampled_loss(same, (z, teacher_outputs(teacher, z)))), 6)
      0.0

    Reference: Du (2019), equation (5.2).
    """
    return squared_loss(predict, "mean")(variables, data) / 2


def weights(variables: Variables) -> tuple[jax.Array, jax.Array]:
    """The filter v (p,), which is not 0, and the output layer a (k,), in floating point."""
    try:
        leaves = variables["params"]
        shared, output = leaves["filter"], leaves["output"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the variables of a WeightNormalizedFilter, as its init returns them: "
            f"'filter' and 'output' in the collection 'params'; missing: {error}."
        ) from error
    return direction("filter", shared), vector("output", output)


def check_teacher(teacher: Any) -> Teacher:
    """`teacher` in floating point, w* and a* with one axis each, neither of them 0."""
    if not isinstance(teacher, Teacher):
        raise ValueError(
            f"teacher is of type {type(teacher).__name__}; expected a Teacher(filter, output), "
            "e.g. from make_teacher."
        )
    return Teacher(direction("w*", teacher.filter), direction("a*", teacher.output))


def target_output(teacher: Teacher) -> jax.Array:
    """‖w*‖a*, the output layer of the global minimum, of a teacher that was checked."""
    return jnp.linalg.norm(teacher.filter) * teacher.output


def read(variables: Variables, teacher: Any) -> tuple[jax.Array, jax.Array, Teacher]:
    """v, a and the teacher, of the same k and p."""
    (shared, output), teacher = weights(variables), check_teacher(teacher)
    if shared.shape != teacher.filter.shape or output.shape != teacher.output.shape:
        raise ValueError(
            f"The filter has shape {shared.shape} and the output layer {output.shape}, those of "
            f"the teacher {teacher.filter.shape} and {teacher.output.shape}; expected the same."
        )
    return shared, output, teacher


def patches(z: ArrayLike) -> jax.Array:
    """`z` as a floating-point array of shape (n, k, p), finite where it can be read."""
    array = jnp.asarray(z)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"z has shape {array.shape}; expected (n, k, p): n samples of k patches with p "
            "entries. For one sample write z[None]."
        )
    array = checks.floating(array)
    checks.finite("z", array)
    return array


def _forward(shared: jax.Array, output: jax.Array, z: jax.Array) -> jax.Array:
    _check_patches(shared, output, z)
    return _combine(shared, output, z) / jnp.linalg.norm(shared)


def _combine(shared: jax.Array, output: jax.Array, z: jax.Array) -> jax.Array:
    # In full: accelerators would round the factors.
    precision = jax.lax.Precision.HIGHEST
    hidden = jax.nn.relu(jnp.matmul(z, shared, precision=precision))
    return jnp.matmul(hidden, output, precision=precision)


def _check_patches(shared: jax.Array, output: jax.Array, z: jax.Array) -> None:
    if z.shape[1:] != (*output.shape, *shared.shape):
        raise ValueError(
            f"z has shape {z.shape}, the output layer {np.shape(output)} and the filter "
            f"{np.shape(shared)}; expected (n, k, p) for z, (k,) and (p,)."
        )
