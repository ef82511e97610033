"""Expected gradients of ½ ‖y − Wσ(Wᵀy + b)‖² under code consistency, in closed form.

Code consistency: x = W_Sᵀ y + b_S on the support S of the true code, 0 elsewhere. S is a uniform
k-subset; W, A and b are arbitrary unless said. C_ij = ⟨W_i, A_j⟩, λ_i = C_ii, G = WᵀW.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.generative import BilinearModel
from ntkflow.systems.sparse_autoencoder.arguments import check
from ntkflow.systems.sparse_autoencoder.network import product


def population_gradient(
    weights: ArrayLike, bias: ArrayLike, model: BilinearModel, *, printed: bool = False
) -> jax.Array:
    """Compute g_i = −E[1{x_i ≠ 0} (W_iᵀy I + b_i I + y W_iᵀ)(y − Wx)], exactly.

    Given S with i ∈ S, with M = A_S (κ_1² 11ᵀ + (κ_2 − κ_1²) I) A_Sᵀ + σ² I, μ = κ_1 A_S 1 and
    P = W_S W_Sᵀ, the expectation is that of

        2 M W_i − P M W_i − M P W_i + b_i (I − P) μ − (W_iᵀμ + b_i) W_S b_S − μ W_iᵀ W_S b_S,

    times −1. Its mean over S takes moments of S up to the third given i ∈ S, and products of
    (m, m) matrices: time O(n m² + m³), memory O(n m + m²).

    The paper's forms, `printed=True`, leave out the noise, which adds −2 p_i σ² W_i and
    2 σ² Σ_j p_ij ⟨W_i, W_j⟩ W_j (p_ii = p_i), nothing for orthonormal W; and ask ‖W_i‖ = 1:
    - mixture of Gaussians, −p_i λ_i A_i + p_i (λ_i + b_i)² W_i (where the text has A for A_i):
      the exact one;
    - sparse coding, equation (15), without bias: of the terms E[x_j x_l] = 1 with j = l it keeps
      that of j = i alone, and is off by 31 % at n = 60, m = 90, k = 3, ‖W_i − A_i‖ = 0.2;
    - non-negative sparse coding, `coefficients(..., printed=True)` without e_i.

    Args:
      weights: W, shape (n, m).
      bias: b, shape (m,).
      model: the generative model, with a dictionary of shape (n, m).
      printed: whether to give the paper's form.

    Returns:
      Shape (n, m), column i being g_i.

    Raises:
      ValueError: shapes that do not fit, NaN; a bias beside the printed form of sparse coding.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(jnp.eye(2))
      >>> weights = jnp.array([[0.6, 0.0], [0.8, 1.0]])
      >>> g = jax.jit(population_gradient)(weights, jnp.array([-0.1, 0.0]), model)
      >>> g.round(4).tolist()
      [[-0.225, 0.0], [0.1, 0.0]]

    Reference: Nguyen, Wong and Hegde (2019b), equation (5) and appendix B.
    """
    w, b, a = _read(weights, bias, model)
    if printed:
        only_zero = model.kind == "sparse_coding" and checks.is_concrete(bias)
        if only_zero and np.any(np.asarray(bias)):
            raise ValueError("bias is not 0; equation (15), the printed form, is for b = 0 alone.")
        return _printed(w, b, a, model)
    kappa_1, kappa_2, noise = _moments(model, w.dtype)
    support = _Support(model, w.dtype)
    mean = support.mean
    c, gram = product(w.T, a), product(w.T, w)
    products = c.T  # column i: C_ij over j
    spread, square = kappa_2 - kappa_1**2, kappa_1**2

    on_a = 2 * (spread * mean * products + square * support.pair(products))
    on_a -= spread * support.cross(c.T, gram) + square * support.outer_triple(c, gram)
    on_a += kappa_1 * (b[None, :] * mean - support.pair(gram * b[:, None]))
    on_w = spread * support.cross(c, products) + square * support.inner_triple(c, products)
    on_w += kappa_1 * b[None, :] * support.cross(c, jnp.ones_like(c))
    on_w += b[:, None] * (kappa_1 * support.pair(products) + b[None, :] * mean)
    on_w += 2 * noise**2 * (mean * gram - jnp.eye(len(b), dtype=w.dtype))
    return model.moments.single * (product(w, on_w) - product(a, on_a))


def population_bias_gradient(
    weights: ArrayLike, bias: ArrayLike, model: BilinearModel, *, printed: bool = False
) -> jax.Array:
    """Compute (g_b)_i = −E[1{x_i ≠ 0} W_iᵀ (y − Wx)], exactly, shape (m,).

    Given S with i ∈ S it is −W_iᵀ ((I − P) μ − W_S b_S); noise adds nothing. For a mixture of
    Gaussians and ‖W_i‖ = 1 it is p_i b_i: W_iᵀ(y − W_i (W_iᵀy + b_i)) = −b_i. The paper prints
    −p_i b_i (`printed=True`), with which descent would make |b_i| grow.

    Args:
      weights, bias, model: as for `population_gradient`.
      printed: whether to give the paper's form, which is for the mixture alone.

    Raises:
      ValueError: shapes that do not fit, NaN; the printed form of another model than the mixture.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(jnp.eye(2))
      >>> bias = jnp.array([-0.2, -0.4])
      >>> jax.jit(population_bias_gradient)(jnp.eye(2), bias, model).round(4).tolist()
      [-0.1, -0.2]

    Reference: Nguyen, Wong and Hegde (2019b), section 5.
    """
    w, b, a = _read(weights, bias, model)
    single = model.moments.single
    if printed:
        if model.kind != "mixture_of_gaussians":
            raise ValueError(
                f"The model is of kind {model.kind!r}; the paper prints the gradient of the bias "
                "for 'mixture_of_gaussians' alone."
            )
        return -single * b
    kappa_1, _, _ = _moments(model, w.dtype)
    support = _Support(model, w.dtype)
    c, gram = product(w.T, a), product(w.T, w)
    inner = support.mean * (gram * b[:, None] - kappa_1 * c.T)
    inner += kappa_1 * gram * support.cross(c, jnp.ones_like(c))
    return single * jnp.sum(inner, axis=0)


class Coefficients(NamedTuple):
    """Those of g_i = α_i W_i − β_i A_i + e_i, the expected gradient; each of shape (m,)."""

    alpha: jax.Array
    beta: jax.Array


def coefficients(
    weights: ArrayLike, bias: ArrayLike, model: BilinearModel, *, printed: bool = False
) -> Coefficients:
    """Compute α_i and β_i, the coefficients of W_i and −A_i in the expected gradient.

    For ‖W_i‖ = 1 and without noise (which, for ‖W_i‖ = 1, adds to neither), with j, l ≠ i:

        α_i = κ_2 p_i λ_i² + κ_2 Σ_j p_ij C_ij² + 2κ_1² Σ_j p_ij λ_i C_ij
              + κ_1² Σ_{j≠l} p_ijl C_ij C_il + 2κ_1 p_i b_i λ_i + 2κ_1 Σ_j p_ij b_i C_ij + p_i b_i²,
        β_i = κ_2 p_i λ_i − κ_2 Σ_j p_ij G_ij C_ji + κ_1² Σ_j p_ij C_ij − κ_1² Σ_j p_ij G_ij C_jj
              − κ_1² Σ_{j≠l} p_ijl G_ij C_jl − κ_1 Σ_j p_ij b_j G_ij.

    The text has ⟨W_j, A_l⟩ for C_jj, with no l in the sum (its proof has A_j), and b_i for b_j in
    the last term; `printed=True` keeps b_i, right where all biases are equal. With these two
    mended they are the coefficients exactly.

    Args:
      weights, bias, model: as for `population_gradient`; ‖W_i‖ = 1 is not checked.
      printed: whether to write b_i in the last term of β_i.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(jnp.eye(2))
      >>> alpha, beta = jax.jit(coefficients)(jnp.eye(2), jnp.array([-0.2, 0.0]), model)
      >>> alpha.round(4).tolist(), beta.tolist()  # p_i (λ_i + b_i)² and p_i λ_i
      ([0.32, 0.5], [0.5, 0.5])

    Reference: Nguyen, Wong and Hegde (2019b), appendix B.3.
    """
    w, b, a = _read(weights, bias, model)
    kappa_1, kappa_2, _ = _moments(model, w.dtype)
    moments = model.moments
    single, pair, triple = moments.single, moments.pair, moments.triple
    c, gram = product(w.T, a), product(w.T, w)
    aligned = jnp.diag(c)
    off = 1 - jnp.eye(len(b), dtype=w.dtype)
    others, gram = off * c, off * gram
    total, squares = jnp.sum(others, axis=1), jnp.sum(jnp.square(others), axis=1)
    # Σ_{j≠l≠i} G_ij C_jl: all l, less l = j and l = i.
    rest = jnp.sum(c, axis=1)[None, :] - aligned[None, :] - c.T
    biases = b[:, None] if printed else b[None, :]
    alpha = (
        kappa_2 * (single * aligned**2 + pair * squares)
        + kappa_1**2 * (2 * pair * aligned * total + triple * (total**2 - squares))
        + 2 * kappa_1 * b * (single * aligned + pair * total)
        + single * b**2
    )
    beta = (
        kappa_2 * (single * aligned - pair * jnp.sum(gram * c.T, axis=1))
        + kappa_1**2 * pair * (total - jnp.sum(gram * aligned[None, :], axis=1))
        - kappa_1**2 * triple * jnp.sum(gram * rest, axis=1)
        - kappa_1 * pair * jnp.sum(gram * biases, axis=1)
    )
    return Coefficients(alpha, beta)


def leading_gradient(
    weights: ArrayLike, bias: ArrayLike, model: BilinearModel, *, printed: bool = False
) -> jax.Array:
    """Compute what (16) keeps of g_i: −κ_2 p_i λ_i A_i + p_i (κ_2 λ_i² + 2κ_1 b_i λ_i + b_i²) W_i.

    Shape (n, m). With a p_i inside of the bracket, 2κ_1 p_i b_i λ_i, as the text has it by
    `printed=True`, it is not what α_i gives, nor, for k = 1, the gradient of the mixture.

    Args:
      weights, bias, model: as for `population_gradient`.
      printed: whether to keep the p_i.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> model = mixture_of_gaussians(jnp.eye(2))
      >>> b = jnp.array([-0.2, 0.0])
      >>> round(float(leading_gradient(jnp.eye(2), b, model)[0, 0]), 4)  # exact, for a mixture
      -0.18
      >>> round(float(leading_gradient(jnp.eye(2), b, model, printed=True)[0, 0]), 4)
      -0.08

    Reference: Nguyen, Wong and Hegde (2019b), equation (16).
    """
    w, b, a = _read(weights, bias, model)
    kappa_1, kappa_2, _ = _moments(model, w.dtype)
    single = model.moments.single
    aligned = jnp.sum(w * a, axis=0)
    spurious = single if printed else 1
    on_w = kappa_2 * aligned**2 + 2 * kappa_1 * spurious * b * aligned + b**2
    return single * (on_w[None, :] * w - (kappa_2 * aligned)[None, :] * a)


class _Support:
    """Moments of s_j = 1{j ∈ S} given i ∈ S, i along the columns, by means and cumulants.

    Outside of i they are exchangeable: E[s_j] = q_1, and with K the ones outside of i, the
    covariance is pair · KKᵀ + diagonal · diag(K), the third cumulant likewise with three numbers.
    """

    def __init__(self, model: BilinearModel, dtype):
        k, m = model.sparsity, model.dictionary.shape[1]
        q_1 = (k - 1) / max(m - 1, 1)
        q_2 = q_1 * max(k - 2, 0) / max(m - 2, 1)
        q_3 = q_2 * max(k - 3, 0) / max(m - 3, 1)
        self.variance = q_1 - q_2, q_2 - q_1**2  # of j = l, and of all j, l
        self.third = (
            q_1 - 3 * q_2 + 2 * q_3,  # j = l = l', beyond the next
            q_2 - q_3 - q_1**2 + q_1 * q_2,  # two equal, beyond the next
            q_3 - 3 * q_1 * q_2 + 2 * q_1**3,  # all j, l, l'
        )
        identity = jnp.eye(m, dtype=dtype)
        self.keep = 1 - identity
        self.mean = identity + q_1 * self.keep

    def covariance(self, x):
        """Cov(s) x."""
        diagonal, pair = self.variance
        kept = self.keep * x
        return diagonal * kept + pair * self.keep * _total(kept)

    def pair(self, x):
        """E[s (s·x)]."""
        return self.mean * _total(self.mean * x) + self.covariance(x)

    def cross(self, c, x):
        """E[s ∘ C(s ∘ x)]."""
        diagonal, pair = self.variance
        kept = self.keep * x
        return (
            self.mean * product(c, self.mean * x)
            + pair * self.keep * product(c, kept)
            + diagonal * jnp.diag(c)[:, None] * kept
        )

    def inner_triple(self, c, x):
        """E[s ∘ (Cs) (s·x)]."""
        diagonal, pair = self.variance
        same, two, all_three = self.third
        keep, mean, own = self.keep, self.mean, jnp.diag(c)[:, None]
        kept, cov = keep * x, self.covariance(x)
        c_keep, c_mean = product(c, keep), product(c, mean)
        return (
            mean * product(c, cov)
            + c_mean * cov
            + _total(mean * x) * (mean * c_mean + keep * (pair * c_keep + diagonal * own))
            + all_three * keep * c_keep * _total(kept)
            + two * (keep * product(c, kept) + kept * c_keep + keep * own * _total(kept))
            + same * own * kept
        )

    def outer_triple(self, c, x):
        """E[s ((s ∘ x)·Cs)]."""
        diagonal, pair = self.variance
        same, two, all_three = self.third
        keep, mean, own = self.keep, self.mean, jnp.diag(c)[:, None]
        kept = keep * x
        c_keep, c_mean = product(c, keep), product(c, mean)
        kept_keep, kept_own = _total(kept * c_keep), _total(kept * own)
        return (
            mean * (_total(mean * x * c_mean) + pair * kept_keep + diagonal * kept_own)
            + self.covariance(product(c.T, mean * x) + x * c_mean)
            + keep * (all_three * kept_keep + two * (kept_own + product(c.T, kept)))
            + kept * (two * c_keep + same * own)
        )


def _total(x):
    return jnp.sum(x, axis=0, keepdims=True)


def _printed(w, b, a, model):
    if model.kind == "nonnegative_sparse_coding":
        alpha, beta = coefficients(w, b, model, printed=True)
        return alpha[None, :] * w - beta[None, :] * a
    if model.kind == "mixture_of_gaussians":
        return leading_gradient(w, b, model)
    c, gram = product(w.T, a), product(w.T, w)
    moments, aligned = model.moments, jnp.diag(c)
    others = moments.pair * (1 - jnp.eye(len(b), dtype=w.dtype)) * c  # [j, i]: p_ij ⟨A_i, W_j⟩
    on_a = jnp.sum(gram * others, axis=0) - moments.single * aligned
    on_w = aligned[None, :] * others + moments.single * jnp.diag(aligned**2)
    return on_a[None, :] * a + product(w, on_w)


def _moments(model: BilinearModel, dtype):
    moments = model.moments
    return (jnp.asarray(x, dtype) for x in (moments.kappa_1, moments.kappa_2, model.noise))


def _read(weights: ArrayLike, bias: ArrayLike, model: BilinearModel):
    check(model=model)
    w, b, a = (jnp.asarray(array) for array in (weights, bias, model.dictionary))
    if w.shape != a.shape or b.shape != w.shape[1:]:
        raise ValueError(
            f"weights have shape {w.shape}, bias {b.shape} and the dictionary {a.shape}; expected "
            "(n, m), (m,) and (n, m)."
        )
    w = checks.matrix("weights", w)
    checks.finite("bias", b)
    dtype = w.dtype
    return w, b.astype(dtype), a.astype(dtype)
