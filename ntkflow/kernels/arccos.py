"""Arc-cosine kernels of order 0, 1 and 2: value and derivatives right at every angle.

All three depend on their inputs through the product of the norms and the inner product alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

# (2/π) arctan(r) = r·P(r²) on 0 <= r <= 1: minimax in the relative error, which is 1.6e-8.
_ARCTAN = (
    *(0.636619762669, -0.212204935652, 0.127276968038, -0.0904232088587, 0.067742289139),
    *(-0.0477738211188, 0.0271782634011, -0.0102296058316, 0.0018142958305),
)


def align(*arrays: ArrayLike) -> list[Array]:
    """The arrays in one floating-point dtype and with one number of axes, not yet broadcast."""
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(dtype, float)
    rank = max(jnp.ndim(a) for a in arrays)
    return [
        jnp.reshape(jnp.asarray(a, dtype), (1,) * (rank - jnp.ndim(a)) + jnp.shape(a))
        for a in arrays
    ]


def safe_sqrt(q: Array) -> Array:
    """√q with derivative 0 at q <= 0, where there is no finite one; of NaN, NaN."""
    none = q <= 0
    return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, q)))


def ratio(a: Array, p: Array) -> Array:
    """a/p, and 0 where p = 0; NaN remains NaN."""
    none = p <= 0
    return jnp.where(none, 0, a / jnp.where(none, 1, p))


def sine(p: Array, c: Array) -> Array:
    """p sin θ = √(p² − c²), with derivative 0 where it vanishes."""
    # p and c carry rounding errors of this size: below it an angle cannot be told from 0 or π,
    # and √ would turn the last bit into an angle of √eps.
    parallel = p - jnp.abs(c) <= 2 * jnp.finfo(p.dtype).eps * p
    # Two roots rather than one: the product would leave the range of float32 for p beyond 10^±19.
    low, high = (jnp.where(parallel, 1, side) for side in (p - c, p + c))
    return jnp.where(parallel, 0, jnp.sqrt(low) * jnp.sqrt(high))


@jax.custom_jvp
def _order_0(p: Array, c: Array) -> Array:
    """1 − θ/π from tan(θ'/2) = p sin θ / (p + |c|), where θ' = min(θ, π − θ) <= π/2."""
    half = ratio(sine(p, c), p + jnp.abs(c))
    if p.dtype == jnp.float64:
        turn = (2 / np.pi) * jnp.arctan(half)
    else:
        square, series = half * half, jnp.full_like(half, _ARCTAN[-1])
        for coefficient in _ARCTAN[-2::-1]:
            series = series * square + coefficient
        turn = half * series
    return jnp.where(p <= 0, 0.5, jnp.where(c < 0, turn, 1 - turn))


@_order_0.defjvp
def _order_0_jvp(primals, tangents):
    (p, c), (dp, dc) = primals, tangents
    slope = ratio(jnp.ones_like(p + c), np.pi * sine(p, c))
    return _order_0(p, c), slope * (dc - ratio(c, p) * dp)


@jax.custom_jvp
def _orders_01(p: Array, c: Array) -> tuple[Array, Array]:
    """k₀ and k₁ = (p sin θ + (π − θ) c)/π from one angle."""
    k0 = _order_0(p, c)
    return k0, sine(p, c) / np.pi + k0 * c


@_orders_01.defjvp
def _orders_01_jvp(primals, tangents):
    # By hand, because in the sum rule for k₁ terms in 1/sin θ cancel.
    (p, c), (dp, dc) = primals, tangents
    k0, dk0 = jax.jvp(_order_0, primals, tangents)
    dk1 = k0 * dc + ratio(sine(p, c), p) / np.pi * dp
    return (k0, sine(p, c) / np.pi + k0 * c), (dk0, dk1)


@jax.custom_jvp
def _order_2(p: Array, c: Array) -> Array:
    return 3 * c * sine(p, c) / np.pi + _order_0(p, c) * (p * p + 2 * c * c)


@_order_2.defjvp
def _order_2_jvp(primals, tangents):
    (p, c), (dp, dc) = primals, tangents
    _, k1 = _orders_01(p, c)
    return _order_2(p, c), 4 * k1 * dc + 2 * _radial(p, c) * dp


@jax.custom_jvp
def _radial(p: Array, c: Array) -> Array:
    """½ ∂k₂/∂p = p k₀ + c sin θ/π."""
    return p * _order_0(p, c) + c * ratio(sine(p, c), p) / np.pi


@_radial.defjvp
def _radial_jvp(primals, tangents):
    (p, c), (dp, dc) = primals, tangents
    sin = ratio(sine(p, c), p)
    slope = _order_0(p, c) - ratio(c, p) * sin / np.pi
    return _radial(p, c), slope * dp + 2 / np.pi * sin * dc


def orders_01(norm1: Array, norm2: Array, inner: Array) -> tuple[Array, Array]:
    """The kernels of order 0 and 1 of `arccos_kernel`, from one angle.

    Args:
      norm1, norm2, inner: arrays of one dtype and one number of axes (see `align`).

    Returns:
      `(k₀, k₁)`.
    """
    return _orders_01(norm1 * norm2, inner)


def norms_and_products(x1: Array, x2: Array | None = None) -> tuple[Array, Array, Array]:
    """Norms and inner products of the rows of x1 (n1, d) and x2 (n2, d), as `orders_01` takes them.

    Args:
      x1, x2: vectors of one floating-point type; x2=None means x1.

    Returns:
      Shapes (n1, 1), (1, n2) and (n1, n2). Where x2 is None, x and itself have the product ‖x‖²
      exactly: rounded apart from it, they would be an angle of √eps apart.

    Example:
      >>> [array.tolist() for array in norms_and_products(jnp.array([[3.0, 4.0], [0.0, 1.0]]))]
      [[[5.0], [1.0]], [[5.0, 1.0]], [[25.0, 4.0], [4.0, 1.0]]]
    """
    others = x1 if x2 is None else x2
    squares1, squares2 = (jnp.sum(jnp.square(x), axis=1) for x in (x1, others))
    inner = jnp.matmul(x1, others.T, precision=jax.lax.Precision.HIGHEST)
    if x2 is None:
        inner = jnp.where(jnp.eye(len(x1), dtype=bool), squares1[:, None], inner)
    return safe_sqrt(squares1)[:, None], safe_sqrt(squares2)[None, :], inner


def arccos_kernel(order: int, norm1: ArrayLike, norm2: ArrayLike, inner: ArrayLike) -> Array:
    """Arc-cosine kernel of order 0, 1 or 2 from norms and inner product.

    kₙ(x, y) = (1/π) ‖x‖ⁿ ‖y‖ⁿ Jₙ(θ) = 2 E_w[Θ(w·x) Θ(w·y) (w·x)ⁿ (w·y)ⁿ], w ~ N(0, I), with θ the
    angle between x and y, Θ the unit step with Θ(0) = ½, and

        J₀ = π − θ
        J₁ = sin θ + (π − θ) cos θ
        J₂ = 3 sin θ cos θ + (π − θ)(1 + 2 cos² θ).

    Value and derivatives are finite everywhere. Those of k₁ and k₂, and the second ones of k₂,
    are the true ones (one-sided at parallel inputs) wherever there is one; so are those of k₀
    and the second ones of k₁ except at parallel and antiparallel inputs, where they diverge: 0
    stands there, the mean over opposite directions. A zero vector has θ = π/2, hence k₀ = ½.

    Each value is that of inputs within rounding of the given ones: k₁ and k₂ are right to a few
    units of the last place of ‖x‖ⁿ‖y‖ⁿ, k₀ to about √eps near parallel inputs, where angles
    below 2√eps count as 0, so that k₀(x, x) = 1 however ‖x‖ was rounded.

    Args:
      order: 0, 1 or 2.
      norm1: ‖x‖ >= 0 (not checked).
      norm2: ‖y‖ >= 0 (not checked).
      inner: x·y. The three broadcast against each other.

    Returns:
      kₙ, of the broadcast shape.

    Raises:
      ValueError: another order.

    Example:
      >>> arccos_kernel(1, 1.0, jnp.array([1.0, 2.0]), jnp.array([1.0, 0.0])).round(4).tolist()
      [1.0, 0.6366]

    Reference:
      Cho and Saul (2009), Kernel methods for deep learning, equations 1 to 7.
    """
    norm1, norm2, inner = align(norm1, norm2, inner)
    p = norm1 * norm2
    if order == 0:
        return _order_0(p, inner)
    if order == 1:
        return _orders_01(p, inner)[1]
    if order == 2:
        return _order_2(p, inner)
    raise ValueError(f"order is {order!r}; expected 0, 1 or 2: no closed form is given for others.")
