"""Runs of gradient descent on ½ ‖UVᵀ − M*‖_F², held against Lemmas 4.1, 4.3 and 4.4."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.matrix_factorization import bounds
from ntkflow.systems.matrix_factorization.arguments import check_epsilon, host
from ntkflow.systems.matrix_factorization.observables import step_observables
from ntkflow.systems.records import check_history, steps_of
from ntkflow.theory import Certificate, inequality


@np.errstate(over="ignore", invalid="ignore")  # divergence is data
def certificate_gradient_descent(
    history: Mapping[str, ArrayLike], steps: ArrayLike, rank: int, epsilon: float
) -> Certificate:
    """Hold a run against Lemma 4.1, and against every inequality of its proof and of Lemma 4.4's.

    The hypotheses are those of the proof, for any schedule: a small start, steps below 1/β, and
    Σ η_t² small enough for the imbalance to stay within ε. Theorem 4.4's schedule meets the last
    two by itself, the footnote's with η_0 ≤ `largest_initial_step`. What the theorem says of the
    limit is `certificate_stationary_point`.

    Args:
      history: what `step_observables(schedule)` recorded, with or without leading axes of seeds.
      steps: of the records, from 0 on; `trajectory.steps`. Sums over steps are exact where every
        step is recorded, and upper bounds where the steps' sizes do not increase.
      rank: r, the number of columns of U.
      epsilon: ε, 0 < ε < ‖M*‖_F.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0, ε is not in (0, ‖M*‖_F).

    Example:
      >>> import jax, optax
      >>> from ntkflow.systems import matrix_factorization as system
      >>> from ntkflow.training.descent import descend
      >>> schedule = system.theorem_schedule(epsilon=0.1, rank=2, norm=1.0)
      >>> observe = system.step_observables(schedule)
      >>> run = descend(system.objective, optax.sgd(schedule), 50, observe=observe)
      >>> @jax.jit
      ... def experiment(key):
      ...     target = system.low_rank_target(key, 5, 4, 2)
      ...     return run(system.initialize(key, 5, 4, 2, std=0.01), target)
      >>> trajectory = experiment(jax.random.key(0))
      >>> certificate = certificate_gradient_descent(trajectory.history, trajectory.steps, 2, 0.1)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    References:
      Du (2019), sections 4.3.1 and 4.7.1 to 4.7.2.
    """
    record, steps, eps = _read(history, steps)
    rank = checks.positive_int("rank", rank)
    norm = record["target_norm"]
    check_epsilon(epsilon, norm)
    dtype = record["objective"].dtype

    def claim(statement, place, smaller, larger, slack=0.0):
        return inequality(statement, f"Du (2019), {place}", smaller, larger + slack, dtype)

    f, d, eta = record["objective"], record["imbalance_norm"], record["step_size"]
    u_squared, v_squared = record["u_norm"] ** 2, record["v_norm"] ** 2
    larger_squared, next_squared = np.maximum(u_squared, v_squared), record["next_norm"] ** 2
    slope = record["gradient_norm"] ** 2
    # Rounding of entries of UᵀU, of UVᵀ − M*, and of the squares of the latter.
    unit = 100 * eps * (u_squared + v_squared + norm)
    rounding = unit * np.sqrt(2 * f) + unit**2
    # Each record stands for the steps up to the next one.
    squares = eta[..., :-1] ** 2 * np.diff(steps)
    squares = np.concatenate([np.zeros_like(eta[..., :1]), np.cumsum(squares, axis=-1)], axis=-1)
    growth = bounds.imbalance_growth(rank, norm, eta).value
    total_growth = bounds.imbalance_growth(rank, norm, np.sqrt(squares)).value
    budget = bounds.largest_step_square_sum(rank, norm[..., -1:], epsilon).value
    proof = "proof of Lemma 4.1"
    first = (..., slice(0, 1))
    return Certificate(
        theorem="Du (2019), Lemma 4.1: gradient descent on the asymmetric factorization",
        hypotheses=(
            claim("‖U_0‖_F² ≤ ε", proof, u_squared[first], epsilon),
            claim("‖V_0‖_F² ≤ ε", proof, v_squared[first], epsilon),
            claim("‖U_0ᵀU_0 − V_0ᵀV_0‖_F ≤ ε/2", proof, d[first], epsilon / 2),
            claim(
                "η_t ≤ 1 / ((66√r + 2) ‖M*‖_F)",
                "equation (4.14)",
                eta,
                bounds.largest_step_size(rank, norm).value,
            ),
            claim(
                "Σ η_t² ≤ ε / (80 √r ‖M*‖_F³), over the run",
                "after equation (4.13)",
                squares[..., -1:],
                budget,
            ),
        ),
        claims=(
            claim("‖U_tᵀU_t − V_tᵀV_t‖_F ≤ ε", "Lemma 4.1 (i)", d, epsilon),
            claim("f_{t+1} ≤ f_t", "Lemma 4.1 (ii)", record["next_objective"], f, rounding),
            claim("f_t ≤ 2 ‖M*‖_F²", "Lemma 4.1 (ii)", f, bounds.initial_objective(norm).value),
            claim(
                "‖U_t‖_F², ‖V_t‖_F² ≤ 5 √r ‖M*‖_F",
                "Lemma 4.1 (iii)",
                larger_squared,
                bounds.factor_norm(rank, norm).value,
            ),
            claim(
                "D_{t+1} = D_t + η_t² (Vᵀ RᵀR V − Uᵀ RRᵀ U), up to rounding",
                "before equation (4.13), dimensions corrected",
                record["drift_error"],
                0.0,
                unit,
            ),
            claim(
                "‖D_{t+1}‖_F ≤ ‖D_t‖_F + 40 √r η_t² ‖M*‖_F³",
                "equation (4.13)",
                record["next_imbalance_norm"],
                d + growth,
                unit,
            ),
            claim(
                "‖D_t‖_F ≤ ‖D_0‖_F + 40 √r ‖M*‖_F³ Σ_{i<t} η_i²",
                "after equation (4.13)",
                d,
                d[first] + total_growth,
                unit * steps,  # of each step's own rounding
            ),
            claim(
                "‖U_{t+1}‖_F², ‖V_{t+1}‖_F² ≤ 11 √r ‖M*‖_F",
                "Claim 4.2",
                next_squared,
                bounds.next_factor_norm(rank, norm).value,
            ),
            claim(
                "[∇²f](∇f, ∇f) ≤ (6c + 2) ‖M*‖_F ‖∇f‖_F², c of the point",
                "Lemma 4.3",
                record["step_curvature"],
                bounds.smoothness(larger_squared / norm, norm).value,
            ),
            claim(
                "f_{t+1} ≤ f_t − ½ η_t ‖∇f_t‖_F²",
                "equation (4.14)",
                record["next_objective"],
                f - eta * slope / 2,
                rounding,
            ),
            claim("‖U_tV_tᵀ‖_F ≤ 3 ‖M*‖_F", "Claim 4.3", record["product_norm"], 3 * norm),
            claim(
                "‖U_t‖_F², ‖V_t‖_F² ≤ √(r (‖D_t‖_F² + 2 ‖U_tV_tᵀ‖_F²))",
                "equation (4.15)",
                larger_squared,
                bounds.balanced_factor_norm(rank, record["product_norm"], d).value,
                unit,
            ),
            claim(
                "Σ_{i≤t} ½ η_i ‖∇f_i‖_F² ≤ f_0",
                "proof of Lemma 4.4, equation (4.16)",
                np.cumsum(eta * slope / 2, axis=-1),
                f[first],
                rounding[first],
            ),
        ),
    )


def _read(
    history: Mapping[str, ArrayLike], steps: ArrayLike
) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """The records, the steps, and the rounding of the run's dtype."""
    needed = step_observables(lambda step: step)
    check_history(history, needed, "step_observables(schedule)")
    record = {name: host(history[name]) for name in needed}
    steps = steps_of(steps, record["objective"])
    return record, steps, float(jnp.finfo(jnp.result_type(history["objective"])).eps)
