"""Asymmetric matrix factorization, ½ ‖UVᵀ − M*‖_F²: objectives, gradients, and the exact drift.

Parameters are {"u": U of shape (d_1, r), "v": V of shape (d_2, r)}, or Flax variables that hold
them; the data of a run are M*, shape (d_1, d_2). No factor 1/2n, no factor of the width.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.matrix_factorization.arguments import (
    check_positive,
    check_rank,
    factors,
    read,
    wide,
)

Params = dict[str, jax.Array]


def low_rank_target(
    key: jax.Array,
    d_1: int,
    d_2: int,
    rank: int,
    *,
    singular_values: Sequence[float] | ArrayLike | None = None,
    norm: ArrayLike | None = None,
    dtype: Any = float,
) -> jax.Array:
    """Draw a random M* of given rank, M* = Φ Σ Ψᵀ.

    Args:
      key: PRNG key.
      d_1, d_2: shape of M*, static.
      rank: of M*, static.
      singular_values: shape (rank,), with Φ and Ψ uniform among orthonormal columns; None takes a
        product of two Gaussian matrices instead.
      norm: ‖M*‖_F, to which M* is scaled. None leaves given singular values as they are, and
        scales the Gaussian product to 1.
      dtype: floating-point type.

    Returns:
      M*, shape (d_1, d_2).

    Raises:
      ValueError: the rank exceeds a dimension, `singular_values` are not (rank,) positive
        numbers, the norm is not positive.

    Example:
      >>> m = low_rank_target(jax.random.key(0), 5, 4, 2, singular_values=[3.0, 1.0])
      >>> jnp.linalg.svd(m, compute_uv=False).round(6).tolist()
      [3.0, 1.0, 0.0, 0.0]
    """
    d_1, d_2 = checks.positive_int("d_1", d_1), checks.positive_int("d_2", d_2)
    rank = check_rank(rank, d_1, d_2)
    checks.prng_key(key)
    left_key, right_key = jax.random.split(key)
    left = jax.random.normal(left_key, (d_1, rank), dtype)
    right = jax.random.normal(right_key, (d_2, rank), dtype)
    if singular_values is None:
        target, norm = left @ right.T, 1.0 if norm is None else norm
    else:
        values = jnp.asarray(singular_values, left.dtype)
        if values.shape != (rank,):
            raise ValueError(
                f"singular_values has shape {values.shape}; expected ({rank},), one for each rank."
            )
        check_positive(singular_values=values)
        # QR fixes the signs of R's diagonal, not of Gaussian columns: the signs undo it.
        left, right = (_orthonormal(factor) for factor in (left, right))
        target = (left * values[None, :]) @ right.T
    if norm is None:
        return target
    check_positive(norm=norm)
    return target * (jnp.asarray(norm, target.dtype) / jnp.linalg.norm(target))


def initialize(
    key: jax.Array, d_1: int, d_2: int, rank: int, std: ArrayLike, dtype: Any = float
) -> Params:
    """Draw U_0 and V_0 with independent entries N(0, std²).

    Args:
      key: PRNG key.
      d_1, d_2, rank: shapes, static; the rank may exceed that of M*, not its dimensions.
      std: the standard deviation: the square root of `initial_variance` for Theorem 4.4, or
        `rank_one_std` for Theorem 4.5.
      dtype: floating-point type.

    Returns:
      {"u": (d_1, r), "v": (d_2, r)}.

    Raises:
      ValueError: the rank exceeds a dimension, the standard deviation is not positive.

    Example:
      >>> params = initialize(jax.random.key(0), 5, 4, 2, std=0.1)
      >>> params["u"].shape, params["v"].shape
      ((5, 2), (4, 2))
    """
    d_1, d_2 = checks.positive_int("d_1", d_1), checks.positive_int("d_2", d_2)
    rank = check_rank(rank, d_1, d_2)
    check_positive(std=std)
    checks.prng_key(key)
    u_key, v_key = jax.random.split(key)
    std = jnp.asarray(std, dtype)
    return {
        "u": std * jax.random.normal(u_key, (d_1, rank), dtype),
        "v": std * jax.random.normal(v_key, (d_2, rank), dtype),
    }


class TwoLayerLinear(nn.Module):
    """The two-layer linear network x ↦ U Vᵀ x, of which the factorization is a training problem.

    On the standard basis x = I of R^{d_2}, with labels y = M*ᵀ, its loss ½ Σ (f − y)² is (4.1).

    Attributes:
      outputs: d_1.
      rank: r, the width.
      std: of the initial entries of U and V.
      param_dtype: of U and V.

    Example:
      >>> network = TwoLayerLinear(outputs=3, rank=2)
      >>> variables = network.init(jax.random.key(0), jnp.eye(4))
      >>> u, v = variables["params"]["u"], variables["params"]["v"]
      >>> bool(jnp.allclose(network.apply(variables, jnp.eye(4)), (u @ v.T).T))
      True

    Reference: Du (2019), proof sketch of Theorem 4.4.
    """

    outputs: int
    rank: int
    std: float = 0.01
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x = checks.matrix("x", x)
        rank = checks.positive_int("rank", self.rank)
        outputs = checks.positive_int("outputs", self.outputs)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        normal = nn.initializers.normal(self.std)
        u = self.param("u", normal, (outputs, rank), dtype)
        v = self.param("v", normal, (x.shape[1], rank), dtype)
        return (x @ v) @ u.T


def residual(params: Any, target: ArrayLike) -> jax.Array:
    """R = UVᵀ − M*, shape (d_1, d_2)."""
    u, v, target = read(params, target)
    return u @ v.T - target


def objective(params: Any, target: ArrayLike) -> jax.Array:
    """f(U, V) = ½ ‖UVᵀ − M*‖_F², a loss for `descend` and `gradient_flow`.

    Example:
      >>> params = {"u": jnp.array([[1.0], [0.0]]), "v": jnp.array([[2.0]])}
      >>> float(objective(params, jnp.array([[0.0], [1.0]])))
      2.5

    Reference: Du (2019), equations (4.1) and (4.8).
    """
    return jnp.sum(jnp.square(residual(params, target))) / 2


def regularized_objective(params: Any, target: ArrayLike) -> jax.Array:
    """½ ‖UVᵀ − M*‖_F² + ⅛ ‖UᵀU − VᵀV‖_F², whose minimizers are balanced.

    Example:
      >>> params = {"u": jnp.array([[1.0], [0.0]]), "v": jnp.array([[2.0]])}
      >>> float(regularized_objective(params, jnp.array([[0.0], [1.0]])))  # 2.5 + (1 − 4)²/8
      3.625

    Reference: Du (2019), equation (4.3).
    """
    return objective(params, target) + jnp.sum(jnp.square(imbalance(params))) / 8


def gradient(params: Any, target: ArrayLike) -> Params:
    """∇f = {"u": RV, "v": RᵀU}, R = UVᵀ − M*.

    Reference: Du (2019), equation (4.2).
    """
    u, v, _ = read(params, target)
    r = residual(params, target)
    return {"u": r @ v, "v": r.T @ u}


def regularized_gradient(params: Any, target: ArrayLike) -> Params:
    """The gradient of (4.3): {"u": RV + ½ UD, "v": RᵀU − ½ VD}, D = UᵀU − VᵀV.

    Reference: derived from Du (2019), equation (4.3).
    """
    u, v, _ = read(params, target)
    plain, d = gradient(params, target), imbalance(params)
    return {"u": plain["u"] + u @ d / 2, "v": plain["v"] - v @ d / 2}


def imbalance(params: Any) -> jax.Array:
    """D = UᵀU − VᵀV, shape (r, r): gradient flow on (4.1) preserves it.

    Reference: Du (2019), Theorem 4.2.
    """
    u, v = factors(params)
    return u.T @ u - v.T @ v


def gradient_step(params: Any, target: ArrayLike, step_size: ArrayLike) -> Params:
    """(U, V) after one step of gradient descent on (4.1), both factors at once.

    Reference: Du (2019), equation (4.9).
    """
    u, v, _ = read(params, target)
    descent, eta = gradient(params, target), jnp.asarray(step_size, u.dtype)
    return {"u": u - eta * descent["u"], "v": v - eta * descent["v"]}


def imbalance_step(params: Any, target: ArrayLike, step_size: ArrayLike) -> jax.Array:
    """D_{t+1} − D_t = η_t² (Vᵀ RᵀR V − Uᵀ RRᵀ U), exactly, shape (r, r).

    The text prints Uᵀ RᵀR U for the last term, whose dimensions fit only where d_1 = d_2.

    Example:
      >>> params = {"u": jnp.array([[1.0]]), "v": jnp.array([[2.0]])}
      >>> after = gradient_step(params, jnp.array([[1.0]]), 0.1)
      >>> change = (imbalance(after) - imbalance(params)).item()
      >>> round(change, 6), round(imbalance_step(params, jnp.array([[1.0]]), 0.1).item(), 6)
      (0.03, 0.03)

    Reference: Du (2019), before equation (4.13).
    """
    descent = gradient(params, target)  # RV and RᵀU: their Gram matrices are the two terms
    change = descent["u"].T @ descent["u"] - descent["v"].T @ descent["v"]
    return jnp.square(jnp.asarray(step_size, change.dtype)) * change


def _orthonormal(columns: jax.Array) -> jax.Array:
    q, r = jnp.linalg.qr(wide(columns))
    return (q * jnp.sign(jnp.diagonal(r))[None, :]).astype(columns.dtype)
