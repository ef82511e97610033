"""Tube and octopus: d saddle points in a row, each of which gradient descent leaves later.

f is a sum over neighbours: with z = |x| and z_0 = ∞, f(x) = Σ_j h(z_{j−1}, z_j). All is elementwise
in the d coordinates, and none of the 2^d arms is looked up.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.saddles import splines
from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants,
    cast,
    check_constants,
    check_dimension,
    check_point,
    real,
)


def octopus(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """f(x) = Σ_j h(|x_{j−1}|, |x_j|), with 2^d minima (±4τ, …, ±4τ) and, on the way, d saddles.

    h(u, v) = c(u) v² for v ≤ τ, g_1(v) for τ ≤ v ≤ 2τ, L(v − 4τ)² − ν for v ≥ 2τ; and
    c(u) = L for u ≤ τ, g_2(u) for τ ≤ u ≤ 2τ, −γ for u ≥ 2τ. Twice continuously differentiable,
    in the arms' seams and at x_j = 0, by autodiff too. Outside of its domain (7.13), where the
    thesis extends it by Whitney's theorem, it is refused, or NaN with its gradient under a trace.

    Args:
      x: points, shape (..., d), any d ≥ 1.
      constants: L, γ, τ; they may be traced.

    Returns:
      Shape (...), of the dtype of `x`.

    Raises:
      ValueError: a point outside of the domain, L < γ.

    Example:
      >>> tau = Constants().tau
      >>> octopus(jnp.array([[0.0, 0.0], [4 * tau, 0.0], [4 * tau, -4 * tau]])).round(3).tolist()
      [0.0, -139.87, -279.741]
      >>> jax.jit(jax.hessian(octopus))(jnp.zeros(2)).round(3).tolist()
      [[-2.0, 0.0], [0.0, 5.437]]
      >>> octopus(jnp.array([0.0, 3.0]))
      Traceback (most recent call last):
      ...
      ValueError: x is outside of the domain: coordinate 2 of the point [0. 3.] is 3.0 and ...

    Reference: Du (2019), equations (7.12)–(7.18).
    """
    x = check_domain(x, constants)
    return _octopus(x, constants)


def tube(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """f_0(x): the arm of the octopus where all x_j ≥ 0, with one minimum (4τ, …, 4τ).

    Args:
      x: points of (7.5), shape (..., d).
      constants: L, γ, τ.

    Returns:
      Shape (...), of the dtype of `x`.

    Raises:
      ValueError: a point outside of the tube, L < γ.

    Reference: Du (2019), equations (7.5)–(7.10), and (7.4) for d = 2.
    """
    x = check_domain(x, constants)
    if checks.is_concrete(x) and np.any(np.asarray(x) < 0):
        where = tuple(int(i) for i in np.argwhere(np.asarray(x) < 0)[0])
        raise ValueError(
            f"x[{', '.join(map(str, where))}] is {np.asarray(x)[where]}; expected x_j ≥ 0 in the "
            "tube. The octopus mirrors it: octopus(x)."
        )
    return _tube(x, constants)


def gradient(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """∇f(x), by hand: ∂f/∂x_j = sign(x_j) [∂h(z_{j−1}, z_j)/∂z_j + c′(z_j) z_{j+1}²].

    Args:
      x: points of the domain, shape (..., d).
      constants: L, γ, τ.

    Returns:
      Of the shape and dtype of `x`.

    Raises:
      ValueError: a point outside of the domain, L < γ.

    Example:
      >>> gradient(jnp.array([-1.0, 0.5])).round(3).tolist()
      [2.0, 2.718]

    Reference: Du (2019), equations (7.14)–(7.18).
    """
    return _gradient(check_domain(x, constants), constants)


def multipliers(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """c_j with ∂f/∂x_j = c_j x_j exactly, where |x_j| ≤ τ: a step multiplies x_j by 1 − η c_j.

    2L while it waits, 2 g_2(|x_{j−1}|) while the coordinate before crosses, −2γ when it is the
    next to leave.

    Args:
      x: points of the domain, shape (..., d).
      constants: L, γ, τ.

    Returns:
      Of the shape and dtype of `x`; 0 where |x_j| > τ, which is no multiple, and NaN outside of
      the domain under a trace.

    Raises:
      ValueError: a point outside of the domain, L < γ.

    Example:
      >>> multipliers(jnp.array([9.0, 1e-9, 2.0])).round(3).tolist()
      [0.0, -2.0, 5.437]
    """
    return _multipliers(check_domain(x, constants), constants)


def stage(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """How many saddle points lie behind: the number of leading |x_j| ≥ 2τ, from 0 to d.

    Args:
      x: points, shape (..., d), of the domain or not.
      constants: L, γ, τ.

    Returns:
      int32, shape (...).

    Example:
      >>> stage(jnp.array([[0.5, 1.0, 0.0], [-7.0, 6.0, 1.0]])).tolist()
      [0, 2]
    """
    check_constants(constants)
    return _stage(check_point(x), constants)


def in_domain(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """Whether x is in the octopus D (7.13): |x_j| ≤ 6τ, and |x_j| ≤ τ unless |x_{j−1}| ≥ 2τ.

    The union of 2^d (d + 1) boxes, said of neighbours; the first coordinate has none before it.

    Args:
      x: points, shape (..., d).
      constants: L, γ, τ.

    Returns:
      Booleans, shape (...).

    Example:
      >>> in_domain(jnp.array([[1.0, -1.0], [0.0, 3.0], [17.0, 1.0]])).tolist()
      [True, False, False]

    Reference: Du (2019), equations (7.12) and (7.13).
    """
    check_constants(constants)
    return _in_domain(check_point(x), constants)


def check_domain(x: ArrayLike, constants: Constants = THESIS) -> jax.Array:
    """`x` as points of the domain, or a ValueError that names the first point outside of it.

    Under a trace, where values cannot be read, it passes.

    Raises:
      ValueError: a point outside of the domain, L < γ.
    """
    check_constants(constants)
    x = check_point(x)
    if not all(checks.is_concrete(value) for value in (x, *constants)):
        return x
    values = np.asarray(x)
    small = Constants(*(np.asarray(constant, values.dtype) for constant in constants))
    allowed = _allowed(values, small)
    if np.all(allowed):
        return x
    *row, j = (int(i) for i in np.argwhere(~allowed)[0])
    point, value, tau = values[tuple(row)], values[(*row, j)], np.asarray(small.tau).item()
    name = "x" if not row else f"x[{', '.join(map(str, row))}]"
    if abs(value) > 6 * tau:
        reason = f"; expected |x_j| ≤ 6τ = {6 * tau:.6g}"
    else:
        reason = (
            f" and coordinate {j} is {point[j - 1]}; expected |x_j| ≤ τ = {tau:.6g} as long as "
            f"|x_(j−1)| < 2τ = {2 * tau:.6g}"
        )
    shown = np.array2string(point, threshold=8, edgeitems=3)
    raise ValueError(
        f"{name} is outside of the domain: coordinate {j + 1} of the point {shown} is {value}"
        f"{reason}. f is defined on the octopus (7.13), which holds [−τ, τ]^d."
    )


def minimum_value(d: int, constants: Constants = THESIS) -> ArrayLike:
    """f* = −dν, at the 2^d minima (±4τ, …, ±4τ).

    Raises:
      ValueError: d < 1, L < γ.

    Example:
      >>> round(minimum_value(5), 6)
      -699.352163
    """
    return -check_dimension(d) * splines.offset(constants)


def minimum(d: int, constants: Constants = THESIS) -> jax.Array:
    """The minimum (4τ, …, 4τ) of the tube, shape (d,); the octopus' others change signs.

    Raises:
      ValueError: d < 1, L < γ.
    """
    check_constants(constants)
    return jnp.full((check_dimension(d),), 4 * real(constants.tau))


def saddle_points(d: int, constants: Constants = THESIS) -> jax.Array:
    """The d saddle points of the tube in the order in which descent meets them.

    Row i is 4τ in the first i coordinates and 0 in the others: f = −iν there, and ∇²f is diagonal,
    −2γ in coordinate i + 1 and 2L in the others: a 2γ-strict saddle.

    Args:
      d: dimension.
      constants: L, γ, τ.

    Returns:
      Shape (d, d); the octopus' others change signs.

    Raises:
      ValueError: d < 1, L < γ.

    Example:
      >>> saddle_points(2, Constants(tau=1.0)).tolist()
      [[0.0, 0.0], [4.0, 0.0]]

    Reference: Du (2019), Lemma 7.1.
    """
    check_constants(constants)
    far = jnp.asarray(4 * real(constants.tau))
    return far * jnp.tri(check_dimension(d), k=-1, dtype=far.dtype)


def _allowed(x: Any, constants: Constants) -> Any:
    """Coordinate by coordinate, for arrays of NumPy and of JAX."""
    numpy = np if isinstance(x, np.ndarray) else jnp
    z, tau = numpy.abs(x), constants.tau
    behind = numpy.concatenate([numpy.ones_like(z[..., :1], bool), z[..., :-1] >= 2 * tau], axis=-1)
    edge = 6 * tau * (1 + 4 * float(jnp.finfo(x.dtype).eps))  # 6τ, however it was rounded
    return (z <= edge) & ((z <= tau) | behind)


def _mirrored(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """sign(x), 1 at 0, and |x|: without the kink, which autodiff of |x| would put at 0."""
    sign = jnp.where(x < 0, -1, 1).astype(x.dtype)
    return sign, sign * x


def _shifted(z: jax.Array, first: Any) -> jax.Array:
    """z_{j−1} at j; `first` before the first."""
    return jnp.concatenate([jnp.full_like(z[..., :1], first), z[..., :-1]], axis=-1)


def _coefficient(u: jax.Array, constants: Constants) -> jax.Array:
    """c(u), of v²."""
    smoothness, curvature, tau = constants
    crossing = splines._g_2(u, constants)
    return jnp.where(u <= tau, smoothness, jnp.where(u < 2 * tau, crossing, -1 * curvature))


@jax.jit
def _octopus(x: jax.Array, constants: Constants) -> jax.Array:
    constants = cast(constants, x.dtype)
    smoothness, _, tau = constants
    _, z = _mirrored(x)
    small = _coefficient(_shifted(z, 2 * tau), constants) * z**2
    far = smoothness * (z - 4 * tau) ** 2 - splines._offset(constants)
    large = jnp.where(z < 2 * tau, splines._g_1(z, constants), far)
    value = jnp.sum(jnp.where(z <= tau, small, large), axis=-1)
    inside = jnp.all(_allowed(x, constants), axis=-1)
    return value * jnp.where(inside, 1, jnp.nan).astype(x.dtype)  # a factor: of the gradient too


@jax.jit
def _tube(x: jax.Array, constants: Constants) -> jax.Array:
    mirrored = jnp.any(x < 0, axis=-1)
    return _octopus(x, constants) * jnp.where(mirrored, jnp.nan, 1).astype(x.dtype)


@jax.jit
def _gradient(x: jax.Array, constants: Constants) -> jax.Array:
    constants = cast(constants, x.dtype)
    smoothness, _, tau = constants
    sign, z = _mirrored(x)
    small = 2 * _coefficient(_shifted(z, 2 * tau), constants) * z
    large = jnp.where(z < 2 * tau, splines._g_1_slope(z, constants), 2 * smoothness * (z - 4 * tau))
    own = jnp.where(z <= tau, small, large)
    after = jnp.concatenate([z[..., 1:], jnp.zeros_like(z[..., :1])], axis=-1)
    crossing = (z > tau) & (z < 2 * tau)
    cross = jnp.where(crossing, splines._g_2_slope(z, constants), 0) * after**2
    inside = jnp.all(_allowed(x, constants), axis=-1, keepdims=True)
    return sign * (own + cross) * jnp.where(inside, 1, jnp.nan).astype(x.dtype)


@jax.jit
def _in_domain(x: jax.Array, constants: Constants) -> jax.Array:
    return jnp.all(_allowed(x, cast(constants, x.dtype)), axis=-1)


@jax.jit
def _multipliers(x: jax.Array, constants: Constants) -> jax.Array:
    constants = cast(constants, x.dtype)
    _, z = _mirrored(x)
    c = 2 * _coefficient(_shifted(z, 2 * constants.tau), constants)
    inside = jnp.all(_allowed(x, constants), axis=-1, keepdims=True)
    return jnp.where(inside, jnp.where(z <= constants.tau, c, 0), jnp.nan)


@jax.jit
def _stage(x: jax.Array, constants: Constants) -> jax.Array:
    behind = jnp.abs(x) >= 2 * cast(constants, x.dtype).tau
    first = jnp.argmin(behind, axis=-1)  # the first that is not
    return jnp.where(jnp.all(behind, axis=-1), x.shape[-1], first).astype(jnp.int32)
