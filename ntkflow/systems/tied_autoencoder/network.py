"""u = (1/m) W φ(Wᵀx), with the loss ½ Σ_i ‖x_i − u_i‖², without 1/n.

The tied autoencoder of Nguyen, Wong and Hegde (2019a), section 6, and its limiting kernel.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import norms_and_products, orders_01, ratio, safe_sqrt
from ntkflow.systems.arguments import check

Variables = Mapping[str, Any]


class TiedAutoencoder(nn.Module):
    """Two-layer ReLU autoencoder whose decoder is its encoder.

    u(x) = (1/m) W φ(Wᵀx) = (1/m) Σ_r φ(w_r·x) w_r, w_r ~ N(0, σ²I), no bias; φ'(0) = 0.

    The scaling is that of section 6, 1/m, and not the 1/√(md) of untied weights: with σ² = 2,
    u(x) → x as m grows, before any training. Its empirical kernel is `empirical_ntk(apply)`, of
    size O(1/m), so that a step size is a number times m; `limit_kernel` has what m times it tends
    to. `infinite_width` refuses tied weights.

    Attributes:
      width: m, the number of hidden neurons.
      variance: σ² of an entry of W.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: the width is not positive, the variance negative, x is not of shape (n, d).

    Example:
      >>> module, x = TiedAutoencoder(width=100_000), jnp.eye(3)
      >>> variables = module.init(jax.random.key(0), x)
      >>> jax.tree.map(jnp.shape, variables)
      {'params': {'weights': (3, 100000)}}
      >>> bool(jnp.max(jnp.abs(module.apply(variables, x) - x)) < 0.02)  # untrained
      True

    Reference: Nguyen, Wong and Hegde (2019a), "Benefits of Jointly Training Autoencoders: An
    Improved Neural Tangent Kernel Analysis", section 6.
    """

    width: int
    variance: float = 2.0
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        width = checks.positive_int("width", self.width)
        check(variance=self.variance)
        x = checks.matrix("x", x)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        normal = nn.initializers.normal(self.variance**0.5)
        return _forward(self.param("weights", normal, (x.shape[1], width), dtype), x)


def weights(variables: Variables) -> jax.Array:
    """W, shape (d, m), column r being w_r."""
    try:
        return variables["params"]["weights"]
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the variables of a TiedAutoencoder, as its init returns them, with the leaf "
            f"'weights' in the collection 'params'; missing: {error}."
        ) from error


def predict(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute u, shape (n, d), as `TiedAutoencoder.apply` does."""
    return _forward(weights(variables), checks.matrix("x", x))


def weight_gradient(variables: Variables, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Compute ∂L/∂W of ½ Σ_i ‖y_i − u_i‖², shape (d, m); y is x for an autoencoder.

    ∂L/∂w_r = −(1/m) Σ_i (φ(w_r·x_i) (y_i − u_i) + 1{w_r·x_i > 0} (w_r·(y_i − u_i)) x_i): W enters
    twice, as decoder and as encoder. The paper trains W without printing this.

    Example:
      >>> variables = {"params": {"weights": jnp.array([[2.0, -1.0]])}}
      >>> x = jnp.array([[1.0]])
      >>> weight_gradient(variables, x, x).tolist()  # u = 2² x/2: (u − x) · 2 · 2 x/2
      [[2.0, 0.0]]
    """
    w, x, y = weights(variables), checks.matrix("x", x), jnp.asarray(y)
    if y.shape != x.shape:
        raise ValueError(
            f"y has shape {y.shape} and x {x.shape}; expected the same: samples are rows, and for "
            "an autoencoder y is x."
        )
    residual = _forward(w, x) - y
    z = x @ w
    encoder = x.T @ jnp.where(z > 0, residual @ w, 0.0)
    return (residual.T @ jax.nn.relu(z) + encoder) / w.shape[1]


def limit_kernel(
    x1: ArrayLike, x2: ArrayLike | None = None, variance: ArrayLike = 2.0
) -> jax.Array:
    """Compute K^∞ = lim m Θ, with Θ the neural tangent kernel of all d outputs.

    K^∞_ab(x, x') = E[φ(w·x) φ(w·x')] δ_ab + x'_a (Cx)_b + (Cx')_a x_b + (x·x') C_ab with
    C = E[1{w·x > 0, w·x' > 0} wwᵀ] = σ²/2π ((π − θ) I + sin θ (ppᵀ − qqᵀ)), θ the angle between x
    and x', p and q the directions of x/‖x‖ ± x'/‖x'‖. For x = x' it is σ² (‖x‖² I + xxᵀ).

    Not in the paper. m Θ is a mean over independent neurons: K^∞ is also its mean at every
    width, and m Θ − K^∞ = O(1/√m). It does not factor into (n, n) ⊗ I, as that of untied weights.
    Descent of step size cm takes the steps of the frozen kernel K^∞ and step size c.

    Args:
      x1, x2: inputs, shapes (n1, d) and (n2, d), of any norms; x2=None means x1.
      variance: σ².

    Returns:
      Shape (n1, n2, d, d), as `empirical_ntk` has it; exactly symmetric where x2 is None.

    Raises:
      ValueError: x1 or x2 is not of shape (n, d), holds NaN, or their d differ.

    Example:
      >>> limit_kernel(jnp.array([[1.0, 0.0]]))[0, 0].tolist()
      [[4.0, 0.0], [0.0, 2.0]]
    """
    check(variance=variance)
    x1 = checks.matrix("x1", x1)
    symmetric = x2 is None
    x2 = None if x2 is None else checks.matrix("x2", x2)
    if x2 is not None and x1.shape[1] != x2.shape[1]:
        raise ValueError(f"x1 has {x1.shape[1]} features and x2 {x2.shape[1]}; expected the same.")
    total = _limit_kernel(x1, x2)
    total = total * jnp.asarray(variance, total.dtype)
    return (total + total.transpose(1, 0, 3, 2)) / 2 if symmetric else total


def _forward(w: jax.Array, x: jax.Array) -> jax.Array:
    if x.shape[1] != w.shape[0]:
        raise ValueError(
            f"x has {x.shape[1]} features and the weights {w.shape[0]}; expected the same: samples "
            "are rows."
        )
    return jax.nn.relu(x @ w) @ w.T / w.shape[1]


@jax.jit  # some forty operations, each of which would compile by itself
def _limit_kernel(x1: jax.Array, x2: jax.Array | None) -> jax.Array:
    """`limit_kernel` for σ² = 1."""
    norms1, norms2, inner = norms_and_products(x1, x2)
    order_0, order_1 = orders_01(norms1, norms2, inner)
    x2 = x1 if x2 is None else x2
    unit1, unit2 = ratio(x1, norms1), ratio(x2, norms2.T)

    # 2 cos(θ/2) p and 2 sin(θ/2) q: their lengths give sin θ without cancellation.
    plus, minus = (unit1[:, None] + sign * unit2[None] for sign in (1, -1))
    cosine, sine = _norm(plus), _norm(minus)
    eye = jnp.eye(x1.shape[1], dtype=inner.dtype)
    moment = (
        math.pi * order_0[..., None, None] * eye[None, None]
        + ratio(sine, cosine)[..., None, None] * _outer(plus, plus) / 2
        - ratio(cosine, sine)[..., None, None] * _outer(minus, minus) / 2
    )  # 2π C / σ²
    a, b = jnp.broadcast_arrays(x1[:, None], x2[None])
    total = (
        math.pi * order_1[..., None, None] * eye[None, None]
        + _outer(b, jnp.einsum("ijab,ijb->ija", moment, a))
        + _outer(jnp.einsum("ijab,ijb->ija", moment, b), a)
        + inner[..., None, None] * moment
    )
    return total / (2 * math.pi)


def _norm(x: jax.Array) -> jax.Array:
    return safe_sqrt(jnp.sum(jnp.square(x), axis=-1))


def _outer(a: jax.Array, b: jax.Array) -> jax.Array:
    return a[..., :, None] * b[..., None, :]
