"""Stationary points of any function: gradient, smallest curvature, strict saddles, smoothness.

Builders take f, a function of an array or a pytree to one number, and return functions of a point,
to be built once and called often.
"""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.matrix_free import lanczos, lanczos_extremes
from ntkflow.kernels.operators import KernelOperator
from ntkflow.kernels.spectrum import extreme_eigenvalues

Objective = Callable[[Any], jax.Array]


class SmallestEigenvalue(NamedTuple):
    """λ_min of a Hessian.

    Attributes:
      value: λ_min; 0 where the precision does not tell it from 0.
      error: bound of |error|: rounding, and with Lanczos, with probability 99% over its probes,
        what the steps left out: λ_min then lies below `value`, by `error` at most.
      resolution: the part of the error that is rounding: of the eigenvalue, 4 ε √p max |λ| of a
        dense p × p Hessian, not of f's own derivatives.
    """

    value: jax.Array
    error: jax.Array
    resolution: jax.Array


class Smoothness(NamedTuple):
    """The smoothness of f, as theorems on saddle points ask for it.

    Attributes:
      bound: B, |f| ≤ B (Definition 7.1).
      gradient_lipschitz: ℓ, ‖∇f(x) − ∇f(y)‖ ≤ ℓ ‖x − y‖ (Definition 7.2).
      hessian_lipschitz: ρ, ‖∇²f(x) − ∇²f(y)‖ ≤ ρ ‖x − y‖ (Definition 7.3).
    """

    bound: ArrayLike
    gradient_lipschitz: ArrayLike
    hessian_lipschitz: ArrayLike


def gradient_norm(f: Objective) -> Callable[[Any], jax.Array]:
    """Build `norm(x)`, ‖∇f(x)‖₂ over all leaves of x.

    Args:
      f: the function.

    Returns:
      A function of a point, which gives a scalar.

    Raises:
      ValueError: f is no function of x to one real number.

    Example:
      >>> norm = gradient_norm(lambda x: jnp.sum(x**2))
      >>> norm(jnp.array([3.0, 4.0])).tolist()
      10.0
    """
    _check_function(f)

    def norm(x: Any) -> jax.Array:
        return _gradient_norm(f, _check_point(f, x))

    return norm


def smallest_hessian_eigenvalue(
    f: Objective,
    method: str = "dense",
    *,
    key: jax.Array | None = None,
    steps: int = 50,
    probes: int = 2,
) -> Callable[[Any], SmallestEigenvalue]:
    """Build `eigenvalue(x)`, λ_min(∇²f(x)).

    Args:
      f: the function, twice differentiable at the points.
      method: "dense" forms the matrix: p² numbers for p parameters, and p³ time. "lanczos" runs
        Lanczos on Hessian-vector products: `steps · probes` products, and steps · p numbers each.
      key: of Lanczos' probes, jax.random.key(0) if None.
      steps: of Lanczos, cut to p.
      probes: of Lanczos.

    Returns:
      A function of a point, which gives a SmallestEigenvalue.

    Raises:
      ValueError: another method, f is no function of x to one real number.

    Example:
      >>> saddle = lambda x: jnp.sum(jnp.array([1.0, 2.0, -3.0]) * x**2)
      >>> smallest_hessian_eigenvalue(saddle)(jnp.zeros(3)).value.round(6).tolist()
      -6.0
      >>> smallest_hessian_eigenvalue(saddle, "lanczos")(jnp.zeros(3)).value.round(6).tolist()
      -6.0
    """
    _check_function(f)
    checks.prng_key(key)
    steps, probes = checks.positive_int("steps", steps), checks.positive_int("probes", probes)
    if method == "dense":
        return lambda x: _dense_eigenvalue(f, _check_point(f, x))
    if method == "lanczos":
        return lambda x: _lanczos_eigenvalue(f, steps, probes, key, _check_point(f, x))
    raise ValueError(f'method is {method!r}; expected "dense" or "lanczos".')


def is_first_order_stationary(f: Objective, epsilon: ArrayLike = 0.0) -> Callable[[Any], jax.Array]:
    """Build `test(x)`: ‖∇f(x)‖ ≤ ε.

    Args:
      f: the function.
      epsilon: ε ≥ 0.

    Raises:
      ValueError: ε < 0, f is no function of x to one real number.

    Example:
      >>> test = is_first_order_stationary(lambda x: jnp.sum(x**2), epsilon=0.1)
      >>> bool(test(jnp.array([0.01]))), bool(test(jnp.array([0.1])))
      (True, False)
    """
    _check_number(epsilon=epsilon)
    norm = gradient_norm(f)
    return lambda x: norm(x) <= epsilon


def is_second_order_stationary(
    f: Objective,
    epsilon: ArrayLike = 0.0,
    hessian_lipschitz: ArrayLike = 0.0,
    method: str = "dense",
    **options: Any,
) -> Callable[[Any], jax.Array]:
    """Build `test(x)`: ‖∇f(x)‖ ≤ ε and λ_min(∇²f(x)) ≥ −√(ρε).

    For ε = 0: the gradient is exactly 0, and the Hessian positive semidefinite up to rounding.
    With Lanczos it says yes only where the bound of λ_min's error allows no other answer.

    Args:
      f: the function.
      epsilon: ε ≥ 0.
      hessian_lipschitz: ρ ≥ 0.
      method, options: as for `smallest_hessian_eigenvalue`.

    Raises:
      ValueError: ε or ρ < 0, another method, f is no function of x to one real number.

    Example:
      >>> saddle = lambda x: x[0] ** 2 - 0.5 * x[1] ** 2
      >>> tests = (is_second_order_stationary(saddle, 0.1, rho) for rho in (0.0, 10.0))
      >>> [bool(test(jnp.zeros(2))) for test in tests]
      [False, True]

    Reference: Du (2019), Definition 7.5; Nesterov and Polyak (2006).
    """
    _check_number(epsilon=epsilon, hessian_lipschitz=hessian_lipschitz)
    norm, eigenvalue = gradient_norm(f), smallest_hessian_eigenvalue(f, method, **options)

    def test(x: Any) -> jax.Array:
        value, error, resolution = eigenvalue(x)
        lowest = value - jnp.maximum(error - resolution, 0)
        return (norm(x) <= epsilon) & (
            lowest >= -resolution - jnp.sqrt(hessian_lipschitz * epsilon)
        )

    return test


def is_strict_saddle(
    f: Objective,
    alpha: ArrayLike,
    tolerance: ArrayLike = 0.0,
    method: str = "dense",
    **options: Any,
) -> Callable[[Any], jax.Array]:
    """Build `test(x)`: ∇f(x) = 0 and λ_min(∇²f(x)) ≤ −α.

    As the definition has it, a maximum passes too: it has directions of escape.

    Args:
      f: the function.
      alpha: α > 0.
      tolerance: ‖∇f(x)‖ up to which the gradient counts as 0.
      method, options: as for `smallest_hessian_eigenvalue`.

    Raises:
      ValueError: α ≤ 0, tolerance < 0, another method, f is no function of x to one real number.

    Example:
      >>> saddle = lambda x: x[0] ** 2 - 0.5 * x[1] ** 2
      >>> [bool(is_strict_saddle(saddle, alpha)(jnp.zeros(2))) for alpha in (0.5, 1.5)]
      [True, False]

    Reference: Du (2019), Definition 7.4.
    """
    _check_number(alpha=alpha, tolerance=tolerance)
    if checks.is_concrete(alpha) and not np.asarray(alpha) > 0:
        raise ValueError(f"alpha is {alpha}; expected a number greater than 0.")
    norm, eigenvalue = gradient_norm(f), smallest_hessian_eigenvalue(f, method, **options)

    def test(x: Any) -> jax.Array:
        value, _, resolution = eigenvalue(x)
        return (norm(x) <= tolerance) & (value <= resolution - alpha)

    return test


def measure_smoothness(
    f: Objective,
    points: Any,
    *,
    key: jax.Array | None = None,
    probes: int = 4,
    steps: int = 8,
    batch_size: int = 64,
) -> Smoothness:
    """Measure B, ℓ and ρ over given points: lower estimates of what holds on a domain.

    max |f|, max ‖∇²f‖, and max |∇³f(w, u, u)| over unit vectors w and u. The last maximum is
    climbed from random w, by turns: u, the eigenvector of ∇³f(w, ·, ·) of largest absolute value,
    then w ∝ ∇³f(·, u, u). Memory: batch_size · probes · p² numbers for p parameters, some times.

    Args:
      f: the function, three times differentiable at the points.
      points: an array or a pytree, with a leading axis of points.
      key: of the random w, jax.random.key(0) if None.
      probes: how many w at each point.
      steps: how often each is improved.
      batch_size: points at once.

    Returns:
      Smoothness of scalars. Each is attained, so that no smaller number would do for the domain
      that the points are drawn from; a larger one may be needed between them.

    Raises:
      ValueError: no points, f is no function of a point to one real number.

    Example:
      >>> points = jnp.linspace(-1.0, 1.0, 9)[:, None]
      >>> [float(v.round(6)) for v in measure_smoothness(lambda x: jnp.sum(x**3), points)]
      [1.0, 6.0, 6.0]

    Reference: Du (2019), Definitions 7.1 to 7.3.
    """
    _check_function(f)
    checks.prng_key(key)
    points = jax.tree.map(_floating, points)
    leaves = jax.tree.leaves(points) or [jnp.zeros(0)]
    checks.same_length(**{f"points_{i}": leaf for i, leaf in enumerate(leaves)})
    checks.finite("points", points)
    probes, steps, batch_size = (
        checks.positive_int(name, value)
        for name, value in (("probes", probes), ("steps", steps), ("batch_size", batch_size))
    )
    _check_value(f, jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), points))
    key = jax.random.key(0) if key is None else key
    return _smoothness(f, probes, steps, min(batch_size, len(leaves[0])), key, points)


class _Negative(NamedTuple):
    """−∇²f as the rule of an operator: what is largest of it is known without a bound below.

    Arrays: the point.
    """

    f: Objective

    def at_once(self, count: int) -> int:
        return count

    def shared(self, count: int) -> "_Negative":
        del count
        return self

    def product(self, arrays: Any, x_test: None, columns: jax.Array) -> jax.Array:
        del x_test
        flat, restore = jax.flatten_util.ravel_pytree(arrays)
        slope = jax.grad(lambda point: self.f(restore(point)))
        one = lambda v: -jax.jvp(slope, (flat,), (v.astype(flat.dtype),))[1]  # noqa: E731
        return jax.vmap(one, in_axes=-1, out_axes=-1)(columns)


@functools.partial(jax.jit, static_argnums=0)
def _gradient_norm(f: Objective, x: Any) -> jax.Array:
    slope, _ = jax.flatten_util.ravel_pytree(jax.grad(f)(x))
    largest = jnp.max(jnp.abs(slope))
    scale = jnp.where(largest > 0, largest, 1)  # or squares underflow, close to saddle points
    return scale * jnp.linalg.norm(slope / scale)


@functools.partial(jax.jit, static_argnums=0)
def _dense_eigenvalue(f: Objective, x: Any) -> SmallestEigenvalue:
    flat, restore = jax.flatten_util.ravel_pytree(x)
    extremes = extreme_eigenvalues(jax.hessian(lambda point: f(restore(point)))(flat))
    # An indefinite matrix is decomposed less exactly than a kernel, and the less the larger it is.
    resolution = extremes.resolution * math.sqrt(flat.size)
    value = jnp.where(jnp.abs(extremes.smallest) < resolution, 0.0, extremes.smallest)
    return SmallestEigenvalue(value, resolution, resolution)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _lanczos_eigenvalue(
    f: Objective, steps: int, probes: int, key: jax.Array | None, x: Any
) -> SmallestEigenvalue:
    flat, _ = jax.flatten_util.ravel_pytree(x)
    dtype = jnp.promote_types(flat.dtype, jnp.float32)
    operator = KernelOperator(x, _Negative(f), flat.shape, dtype)
    key = jax.random.key(0) if key is None else key
    extremes = lanczos_extremes(lanczos(key, operator, steps=steps, probes=probes))
    value, error, resolution = -extremes.largest, extremes.largest_error, extremes.resolution
    return SmallestEigenvalue(jnp.where(jnp.abs(value) < resolution, 0.0, value), error, resolution)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _smoothness(
    f: Objective, probes: int, steps: int, batch_size: int, key: jax.Array, points: Any
) -> Smoothness:
    first = jax.tree.map(lambda leaf: leaf[0], points)
    flat, restore = jax.flatten_util.ravel_pytree(first)
    value = lambda x: f(restore(x))  # noqa: E731
    hessian = jax.hessian(value)
    starts = jax.random.normal(key, (probes, flat.size), flat.dtype)

    def third(x, w):
        """∇³f(w, ·, ·), its eigenvalue of largest absolute value, and ∇³f(·, u, u)."""
        _, change = jax.jvp(hessian, (x,), (w / jnp.linalg.norm(w),))
        values, vectors = jnp.linalg.eigh(change)
        largest = jnp.argmax(jnp.abs(values))
        u = vectors[:, largest]
        bend = lambda y: jax.jvp(lambda z: jax.jvp(value, (z,), (u,))[1], (y,), (u,))[1]  # noqa: E731
        return jnp.abs(values[largest]), jax.grad(bend)(x)

    def climb(x, w):
        def improve(w, _):
            size, better = third(x, w)
            return jnp.where(jnp.linalg.norm(better) > 0, better, w), size

        return jnp.max(jax.lax.scan(improve, w, length=steps)[1])

    def one(point):
        x, _ = jax.flatten_util.ravel_pytree(point)
        curvature = jnp.max(jnp.abs(jnp.linalg.eigvalsh(hessian(x))))
        return jnp.abs(value(x)), curvature, jnp.max(jax.vmap(climb, (None, 0))(x, starts))

    return Smoothness(*map(jnp.max, jax.lax.map(one, points, batch_size=batch_size)))


def _check_function(f: Any) -> None:
    if not callable(f):
        raise ValueError(
            f"f is of type {type(f).__name__}; expected a function of an array or a pytree to one "
            "real number."
        )
    if not isinstance(f, Hashable):
        raise ValueError(f"f {f!r} is not hashable; expected a function: write lambda x: f(x).")


def _check_point(f: Objective, x: Any) -> Any:
    x = jax.tree.map(_floating, x)
    if not sum(leaf.size for leaf in jax.tree.leaves(x)):
        raise ValueError("x holds no numbers; expected an array or a pytree of arrays.")
    checks.finite("x", x)
    _check_value(f, x)
    return x


def _check_value(f: Objective, x: Any) -> None:
    value = jax.eval_shape(f, x)
    if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"f(x) is {value}; expected one real number. Of many take their sum.")


def _floating(leaf: ArrayLike) -> jax.Array:
    array = jnp.asarray(leaf)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"x has dtype {array.dtype}; expected real numbers, or two for each.")
    return checks.floating(array)


def _check_number(**values: ArrayLike) -> None:
    for name, value in values.items():
        if checks.is_concrete(value) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{name} is {value}; expected a number, 0 or greater.")
