"""Runs of the rank-one factorization with a constant step, held against Theorem 4.5."""

import jax.numpy as jnp
import numpy as np

from ntkflow import checks
from ntkflow.systems.matrix_factorization.arguments import check_positive
from ntkflow.systems.matrix_factorization.rank_one import (
    RankOne,
    check_start,
    complement,
    complement_time,
    escape_time,
    next_complement,
    next_signal_error,
    product_error,
    rank_one_std,
    read_path,
    signal_constant,
    signal_error,
    signal_time,
    stage_times,
)
from ntkflow.systems.records import DIVERGENCE_IS_DATA
from ntkflow.theory import Certificate, inequality


@DIVERGENCE_IS_DATA
def certificate_rank_one(
    path: RankOne,
    sigma_1: float,
    step_size: float,
    d: int,
    c_init: float,
    *,
    epsilon: float = 1e-3,
) -> Certificate:
    """Hold a run with every step recorded against Theorem 4.5 and Lemmas 4.5 and 4.6.

    The lemmas' c_1 is that of the run, `signal_constant`: min(α, β)² / (4σ_1) at T_1. What their
    proofs ask of "sufficiently small" c_init and c_step stands as hypotheses, derived; claims
    before T_1 are those of Lemma 4.5, from T_1 on those of Lemma 4.6. Its ξ_0 ≤ 100 c_init²σ_1 does
    not follow from α_{0,⊥}, β_{0,⊥} ≤ 10 c_init √σ_1, which give 200; Gaussian starts have near 2.

    Args:
      path: of `simulate`, or `reduce` along a run: shape (..., steps + 1), leading axes are seeds.
      sigma_1: σ_1.
      step_size: η = c_step / σ_1.
      d: max(d_1, d_2).
      c_init: of the initialization.
      epsilon: ε of the theorem's last statement, in (0, 1).

    Returns:
      The certificate. A run with α_0β_0 < 0, half of them, is not in the theorem's reach.

    Raises:
      ValueError: fewer than two records, both signals 0 at the start, a constant not positive.

    Example:
      >>> from ntkflow.systems.matrix_factorization import simulate
      >>> start = RankOne(0.008, 0.012, 0.05, 0.05)
      >>> path = simulate(start, step_size=0.03, sigma_1=1.0, steps=600)
      >>> certificate = certificate_rank_one(path, 1.0, 0.03, d=25, c_init=0.05)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    References:
      Du (2019), sections 4.3.2 and 4.8.
    """
    given, path = path, read_path(path)
    if path.alpha.shape[-1] < 2:
        raise ValueError(
            f"path has shape {path.alpha.shape}; expected (..., steps + 1), every step recorded."
        )
    check_positive(sigma_1=sigma_1, step_size=step_size, c_init=c_init)
    if any(np.ndim(value) for value in (sigma_1, step_size, c_init)):
        raise ValueError(
            "sigma_1, step_size or c_init is an array; expected one number each: a certificate is "
            "of one setting, over any number of seeds."
        )
    checks.positive_int("d", d)
    check_start(path)
    dtype = path.alpha.dtype
    times = stage_times(path, sigma_1, epsilon)
    # If both signals are negative, flip u* and v*.
    sign = np.where(path.alpha[..., :1] < 0, -1, 1).astype(dtype)
    alpha, beta = sign * path.alpha, sign * path.beta
    c_step, root = step_size * sigma_1, np.sqrt(sigma_1)
    t = np.arange(alpha.shape[-1])
    escape = times.escape[..., None]
    c_1 = signal_constant(path, sigma_1, times)[..., None]
    h, xi = signal_error(path, sigma_1), complement(path)
    error, total, gap = product_error(path, sigma_1), alpha + beta, np.abs(alpha - beta)
    xi_0, before = xi[..., :1], slice(None, -1)
    noise = 100 * float(jnp.finfo(jnp.result_type(*given, 0.0)).eps) * sigma_1
    scale = rank_one_std(d, sigma_1, c_init).value

    def claim(statement, place, smaller, larger, during=True, slack=0.0):
        larger = np.where(during, larger + slack, np.inf)  # elsewhere, nothing is claimed
        smaller = np.where(during, smaller, 0.0)
        return inequality(statement, f"Du (2019), {place}", smaller, larger, dtype)

    stage_1, stage_2 = t < escape, t >= escape
    elapsed = np.where(stage_2, t - np.where(np.isfinite(escape), escape, 0), 0)
    shrink = (1 - c_1 * c_step) ** elapsed
    first = np.minimum(np.abs(alpha), np.abs(beta))[..., :1]
    largest = np.maximum(np.abs(alpha), np.abs(beta))
    ratio = np.maximum(np.abs(alpha / beta), np.abs(beta / alpha))
    largest_ratio = np.maximum(100, np.where(np.isfinite(c_1), 1 / c_1, 100))

    h_escape = np.take_along_axis(
        np.abs(h), np.where(np.isfinite(escape), escape, 0).astype(int), axis=-1
    )
    rest = c_step * elapsed * (1 - c_1 * c_step) ** np.maximum(elapsed - 1, 0) * xi_0
    h_bound, xi_bound = shrink * h_escape + rest, shrink * xi_0
    rate = np.sqrt(h_bound**2 + (c_1 + 1 / c_1) * sigma_1 * xi_bound + xi_bound**2 / 4)
    start = np.maximum(total[..., 0], np.finfo(dtype).tiny)  # α_0β_0 < 0: the bound is not claimed
    latest = np.asarray(escape_time(start, sigma_1, c_step).value)
    deadline = escape[..., 0] + 0.0
    known = np.isfinite(c_1[..., 0])
    constant = np.where(known, c_1[..., 0], 1.0)
    deadline = (
        deadline
        + np.asarray(complement_time(constant, c_step, xi_0[..., 0] / sigma_1, epsilon).value)
        + np.asarray(signal_time(constant, c_step, epsilon).value)
    )[..., None]
    lemma_1, lemma_2 = "Lemma 4.5", "Lemma 4.6"
    return Certificate(
        theorem="Du (2019), Theorem 4.5: rank-one factorization with a constant step",
        hypotheses=(
            claim("0 < α_0β_0", "section 4.8", 0.0, alpha[..., :1] * beta[..., :1]),
            claim("0.1 c_init √(σ_1/d) ≤ |α_0|, |β_0|", "section 4.8", 0.1 * scale, first),
            claim("|α_0|, |β_0| ≤ 10 c_init √(σ_1/d)", "section 4.8", largest[..., :1], 10 * scale),
            claim(
                "α_{0,⊥}, β_{0,⊥} ≤ 10 c_init √σ_1",
                "section 4.8",
                np.maximum(path.alpha_perp, path.beta_perp)[..., :1],
                10 * c_init * root,
            ),
            claim("ξ_0 ≤ σ_1/6", "proof of Lemma 4.5, derived", xi_0, sigma_1 / 6),
            claim("c_step ≤ 1", "proof of Lemma 4.5, derived", c_step, 1.0),
            claim(
                "ξ_0 ≤ ½ log(2) c_1σ_1",
                "proof of Lemma 4.6, derived",
                xi_0,
                np.log(2) / 2 * c_1 * sigma_1,
            ),
            claim("c_step ≤ c_1/2", "proof of Lemma 4.6, derived", c_step, c_1 / 2),
        ),
        claims=(
            claim(
                "h_{t+1} is that of the recursion, up to rounding",
                "equation (4.24)",
                np.abs(next_signal_error(path, step_size, sigma_1)[..., before] - h[..., 1:]),
                0.0,
                slack=noise,
            ),
            claim(
                "ξ_{t+1} is that of the recursion, up to rounding",
                "equation (4.24)",
                np.abs(next_complement(path, step_size)[..., before] - xi[..., 1:]),
                0.0,
                slack=noise,
            ),
            claim("0 < α_t, β_t", f"{lemma_1} (i)", 0.0, np.minimum(alpha, beta), stage_1),
            claim("ξ_t ≤ ξ_0", f"{lemma_1} (ii)", xi, xi_0, stage_1),
            claim("ξ_0 ≤ 100 c_init² σ_1", f"{lemma_1} (ii)", xi_0, 100 * c_init**2 * sigma_1),
            claim(
                "(1 + c_step/3)(α_t + β_t) ≤ α_{t+1} + β_{t+1}",
                f"{lemma_1} (iii)",
                (1 + c_step / 3) * total[..., before],
                total[..., 1:],
                stage_1[..., before],
            ),
            claim(
                "α_{t+1} + β_{t+1} ≤ (1 + c_step)(α_t + β_t)",
                f"{lemma_1} (iii)",
                total[..., 1:],
                (1 + c_step) * total[..., before],
                stage_1[..., before],
            ),
            claim(
                "|α_t − β_t| ≤ (99/101)(α_t + β_t)",
                f"{lemma_1} (iv)",
                gap,
                99 / 101 * total,
                t <= escape,
            ),
            claim(
                "T_1 ≤ 1 + log(√σ_1 / (α_0 + β_0)) / log(1 + c_step/3)",
                lemma_1,
                np.where(np.isfinite(times.escape), times.escape, t[-1])[..., None],
                latest[..., None],
            ),
            claim(
                "√(c_1σ_1) ≤ α_t, β_t",
                f"{lemma_2} (a)",
                np.sqrt(c_1 * sigma_1),
                np.minimum(alpha, beta),
                stage_2,
            ),
            claim("α_tβ_t ≤ σ_1", f"{lemma_2} (b)", alpha * beta, sigma_1, stage_2, slack=noise),
            claim(
                "ξ_t ≤ (1 − c_1c_step)^{t−T_1} ξ_0",
                f"{lemma_2} (c)",
                xi,
                xi_bound,
                stage_2,
            ),
            claim(
                "|h_{t+1}| ≤ (1 − c_1c_step)|h_t| + c_step ξ_t",
                f"{lemma_2} (d)",
                np.abs(h)[..., 1:],
                (1 - c_1 * c_step) * np.abs(h)[..., before] + c_step * xi[..., before],
                stage_2[..., before],
                slack=noise,
            ),
            claim("max(α_t/β_t, β_t/α_t) ≤ max(100, 1/c_1)", "Theorem 4.5", ratio, largest_ratio),
            claim(
                "‖u_tv_tᵀ − M*‖_F ≤ √(h̄² + (c_1 + 1/c_1) σ_1 ξ̄ + ¼ξ̄²), h̄ and ξ̄ the bounds of "
                "Lemma 4.6",
                "Theorem 4.5, derived",
                error,
                rate,
                stage_2,
                slack=noise,
            ),
            claim(
                "‖u_tv_tᵀ − M*‖_F ≤ εσ_1 for t ≥ T_1 + T_2 + T_3",
                "Theorem 4.5, constants derived",
                error,
                epsilon * sigma_1,
                t >= deadline,
            ),
        ),
    )
