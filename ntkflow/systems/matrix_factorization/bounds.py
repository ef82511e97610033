"""What Du (2019), sections 4.3 and 4.7, asks and promises of gradient descent on ½ ‖UVᵀ − M*‖_F².

Throughout: d_1, d_2 the dimensions, d the larger, r the number of columns, `norm` = ‖M*‖_F, ε the
accuracy, δ the probability of failure. Arguments are scalars or arrays that broadcast.
"""

from jax.typing import ArrayLike

from ntkflow.systems.matrix_factorization.arguments import (
    check,
    check_epsilon,
    check_excess,
    check_positive,
    library,
    real,
    source,
)
from ntkflow.theory import Bound


def initial_variance(d: ArrayLike, rank: ArrayLike, epsilon: ArrayLike, delta: ArrayLike) -> Bound:
    """A variance of the initial entries that suffices for Theorem 4.4, ε / poly(d).

    The proof needs ‖U_0‖_F², ‖V_0‖_F² ≤ ε and ‖U_0ᵀU_0 − V_0ᵀV_0‖_F ≤ ε/2, and leaves poly(d)
    open. ‖U_0‖_F² is the variance times a χ² of at most k = dr degrees of freedom, which exceeds
    q = k + 2√(k log(2/δ)) + 2 log(2/δ) with probability δ/2 at most (Laurent and Massart, 2000,
    Lemma 1); and two positive semidefinite matrices differ by √2 times the larger at most.

    Example:
      >>> f"{initial_variance(20, 3, 0.1, 0.1).value:.3g}"
      '0.000381'
    """
    check(d=d, rank=rank, delta=delta)
    check_positive(epsilon=epsilon)
    lib = library(d, rank, epsilon, delta)
    degrees, log = real(d) * rank, lib.log(2 / real(delta))
    quantile = degrees + 2 * lib.sqrt(degrees * log) + 2 * log
    place = source("proof of Lemma 4.1", "derived; the text leaves poly(d) open")
    formula = "ε / (2√2 (dr + 2√(dr log(2/δ)) + 2 log(2/δ)))"
    return Bound(epsilon / (8**0.5 * quantile), formula, 1.0, place)


def largest_step_size(rank: ArrayLike, norm: ArrayLike) -> Bound:
    """The step size up to which the proof's descent (4.14) works, 1/β, β = (66√r + 2) ‖M*‖_F.

    Example:
      >>> round(largest_step_size(1, 1.0).value, 5)
      0.01471
    """
    check_positive(norm=norm)
    place = source("proof of Lemma 4.1, equation (4.14)")
    return Bound(
        1 / smoothness(11 * _root(rank), norm).value, "1 / ((66√r + 2) ‖M*‖_F)", 1.0, place
    )


def largest_step_square_sum(rank: ArrayLike, norm: ArrayLike, epsilon: ArrayLike) -> Bound:
    """The bound on Σ_t η_t² that the induction of Lemma 4.1 needs, ε / (80 √r ‖M*‖_F³).

    Together with 1/β it is all that the proof asks of the schedule. The theorem's own sums to
    (π²/6) ε / (10⁴ r ‖M*‖_F³), 76 √r times less.

    Example:
      >>> round(largest_step_square_sum(1, 1.0, 0.1).value, 5)
      0.00125
    """
    check_epsilon(epsilon, norm)
    value = epsilon / (80 * _root(rank) * real(norm) ** 3)
    place = source("proof of Lemma 4.1, after (4.13)", "derived: what ε/2 leaves")
    return Bound(value, "ε / (80 √r ‖M*‖_F³)", 1.0, place)


def largest_initial_step(
    rank: ArrayLike, norm: ArrayLike, epsilon: ArrayLike, excess: ArrayLike
) -> Bound:
    """The largest η_0 in η_t = η_0 (t+1)^{−(½+δ)} for which the proof of Lemma 4.1 goes through.

    min(1/β, √(ε / (80 √r ‖M*‖_F³ (1 + 1/2δ)))), because Σ_{t≥1} t^{−(1+2δ)} ≤ 1 + 1/(2δ). The
    footnote says Θ(t^{−(½+δ)}) for any δ in (0, ½], without a factor.

    Args:
      rank, norm, epsilon: r, ‖M*‖_F and ε.
      excess: δ of the schedule, in (0, ½].

    Example:
      >>> round(float(largest_initial_step(1, 1.0, 0.1, 0.5).value), 5)  # 1/β is the smaller
      0.01471
    """
    check_excess(excess)
    budget = largest_step_square_sum(rank, norm, epsilon).value
    root = (budget / (1 + 1 / (2 * real(excess)))) ** 0.5
    step = largest_step_size(rank, norm).value
    value = library(root, step).minimum(root, step)
    formula = "min(1/β, √(ε / (80 √r ‖M*‖_F³ (1 + 1/2δ))))"
    place = source("footnote 6", "derived from the proof of Lemma 4.1; Θ(·) is open")
    return Bound(value, formula, 1.0, place)


def initial_objective(norm: ArrayLike) -> Bound:
    """The bound on f(U_t, V_t) at every t, 2 ‖M*‖_F².

    Example:
      >>> initial_objective(3.0).value
      18.0
    """
    check(norm=norm)
    return Bound(2 * real(norm) ** 2, "2 ‖M*‖_F²", 1.0, source("Lemma 4.1 (ii)"))


def factor_norm(rank: ArrayLike, norm: ArrayLike) -> Bound:
    """The bound on ‖U_t‖_F² and ‖V_t‖_F² at every t, 5 √r ‖M*‖_F.

    Example:
      >>> factor_norm(4, 3.0).value
      30.0
    """
    check(norm=norm)
    place = source("Lemma 4.1 (iii), equation (4.15)")
    return Bound(5 * _root(rank) * norm, "5 √r ‖M*‖_F", 1.0, place)


def next_factor_norm(rank: ArrayLike, norm: ArrayLike) -> Bound:
    """The bound on ‖U_{t+1}‖_F² and ‖V_{t+1}‖_F² that follows from step t, 11 √r ‖M*‖_F.

    Example:
      >>> next_factor_norm(4, 3.0).value
      66.0
    """
    check(norm=norm)
    return Bound(11 * _root(rank) * norm, "11 √r ‖M*‖_F", 1.0, source("proof of Claim 4.2"))


def balanced_factor_norm(rank: ArrayLike, product_norm: ArrayLike, imbalance: ArrayLike) -> Bound:
    """The bound on ‖U‖_F² and ‖V‖_F² of any (U, V), √(r (‖UᵀU − VᵀV‖_F² + 2 ‖UVᵀ‖_F²)).

    With ‖UVᵀ‖_F ≤ 3 ‖M*‖_F and ‖UᵀU − VᵀV‖_F ≤ ε ≤ ‖M*‖_F it is at most √19 √r ‖M*‖_F, which
    (4.15) rounds up to 5 √r ‖M*‖_F.

    Args:
      rank: r.
      product_norm: ‖UVᵀ‖_F.
      imbalance: ‖UᵀU − VᵀV‖_F.

    Example:
      >>> round(balanced_factor_norm(1, 3.0, 1.0).value ** 2, 10)
      19.0
    """
    check(product_norm=product_norm, imbalance=imbalance)
    value = _root(rank) * (real(imbalance) ** 2 + 2 * real(product_norm) ** 2) ** 0.5
    formula = "√(r (‖UᵀU − VᵀV‖_F² + 2 ‖UVᵀ‖_F²))"
    return Bound(value, formula, 1.0, source("equation (4.15)", "the last line of its proof"))


def smoothness(c: ArrayLike, norm: ArrayLike) -> Bound:
    """The bound on λ_max(∇²f) where ‖U‖_F², ‖V‖_F² ≤ c ‖M*‖_F, (6c + 2) ‖M*‖_F.

    2 ‖Δ_U‖ ‖Δ_V‖ ≤ ‖Δ‖² gives half of it, (3c + 1) ‖M*‖_F, which is attained.

    Example:
      >>> smoothness(11.0, 1.0).value
      68.0
    """
    check(c=c, norm=norm)
    return Bound((6 * real(c) + 2) * norm, "(6c + 2) ‖M*‖_F", 1.0, source("Lemma 4.3"))


def imbalance_growth(rank: ArrayLike, norm: ArrayLike, step_size: ArrayLike) -> Bound:
    """The bound on ‖D_{t+1}‖_F − ‖D_t‖_F, D = UᵀU − VᵀV, 40 √r η_t² ‖M*‖_F³.

    Example:
      >>> round(imbalance_growth(1, 1.0, 0.01).value, 6)
      0.004
    """
    check(norm=norm, step_size=step_size)
    value = 40 * _root(rank) * real(step_size) ** 2 * real(norm) ** 3
    return Bound(value, "40 √r η_t² ‖M*‖_F³", 1.0, source("equation (4.13)"))


def saddle_curvature(error: ArrayLike, imbalance: ArrayLike) -> Bound:
    """The bound on [∇²f](Δ, Δ) at a stationary point, −‖UVᵀ − M*‖_F² + ½ ‖UᵀU − VᵀV‖_F².

    With ‖UᵀU − VᵀV‖_F ≤ ε it is below −½ε² unless ‖UVᵀ − M*‖_F ≤ ε. At any other point
    4 ⟨∇f, Δ⟩ is added, by the same proof.

    Args:
      error: ‖UVᵀ − M*‖_F.
      imbalance: ‖UᵀU − VᵀV‖_F, at most ε.

    Example:
      >>> saddle_curvature(2.0, 1.0).value
      -3.5
    """
    check(error=error, imbalance=imbalance)
    value = real(imbalance) ** 2 / 2 - real(error) ** 2
    return Bound(value, "−‖UVᵀ − M*‖_F² + ½ ‖UᵀU − VᵀV‖_F²", 1.0, source("proof of Lemma 4.2"))


def _root(rank: ArrayLike) -> ArrayLike:
    check(rank=rank)
    return real(rank) ** 0.5
