"""What Nguyen, Wong and Hegde (2019a), section 4 and appendix B, promise where the encoder trains.

For Rademacher decoders, ‖a_r‖ = √d. Symbols and conventions are those of `bounds`; `residual_norm`
is ‖X − U‖_F, at initialization unless said. Terms C_i bound what one step of descent adds to
‖X − U(k)‖_F², as multiples of it.
"""

import math

from jax.typing import ArrayLike

from ntkflow.systems.autoencoder.arguments import check, library, real, source
from ntkflow.systems.autoencoder.bounds import kernel_term
from ntkflow.systems.autoencoder.constants import DISTANCE_FACTOR, Dynamics, check_dynamics
from ntkflow.theory import Bound


def neuron_gradient_norm(m: ArrayLike, lambda_n: ArrayLike, residual_norm: ArrayLike) -> Bound:
    """The bound on every ‖∂L/∂w_r‖, √(λ_n/m) ‖X − U‖_F.

    Example:
      >>> round(neuron_gradient_norm(100, 4.0, 3.0).value, 6)
      0.6

    Reference: Nguyen, Wong and Hegde (2019a), proofs of Lemma 4.3 and Claim B.3.
    """
    check(m=m, lambda_n=lambda_n, residual_norm=residual_norm)
    value = (lambda_n / real(m)) ** 0.5 * residual_norm
    place = source("proofs of Lemmas 4.3, 4.5 and of Claims B.3, B.4")
    return Bound(value, "√(λ_n/m) ‖X − U‖", 1.0, place)


def neuron_distance(
    d: ArrayLike,
    m: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    residual_norm: ArrayLike,
    dynamics: Dynamics,
    *,
    printed: bool = False,
) -> Bound:
    """R', the bound on every ‖w_r − w_r(0)‖: f d √λ_n ‖X − U(0)‖_F / (√m λ_0).

    f = 2 along the flow, where Lemma 4.3 prints 1: its proof bounds ‖X − U(s)‖_F by exp(−λ_0 s/d),
    which is the bound on the square; Lemma 5.4 has the exp(−λ_0 s/(2d)) that follows. One sample
    with 3 of 8 neurons active meets the lemma's condition, and moves by 4/3 of the printed bound.
    f = 4 along gradient descent, where the rate (4.9) is what Lemma 4.5 rests on.

    Example:
      >>> round(neuron_distance(5, 10_000, 0.5, 4.0, 3.0, "flow").value, 6)
      1.2

    Reference: Nguyen, Wong and Hegde (2019a), Lemmas 4.3 and 4.5.
    """
    check(d=d, m=m, lambda_0=lambda_0, lambda_n=lambda_n, residual_norm=residual_norm)
    check_dynamics(dynamics)
    factor = 1.0 if printed and dynamics == "flow" else DISTANCE_FACTOR[dynamics]
    value = factor * real(d) * (lambda_n / real(m)) ** 0.5 * residual_norm / lambda_0
    note = "" if dynamics == "descent" else ("as printed" if printed else "factor 2; printed 1")
    place = source("Lemma 4.3" if dynamics == "flow" else "Lemma 4.5", note)
    return Bound(value, f"R' = {factor:g} d √λ_n ‖X − U(0)‖ / (√m λ_0)", factor, place)


def gram_perturbation(
    n: ArrayLike, d: ArrayLike, radius: ArrayLike, delta: ArrayLike | None = None
) -> Bound:
    """The bound on ‖G − G(0)‖ for all w_r within R of w_r(0) at once, 2n²dR/δ.

    Args:
      n, d: samples and dimension.
      radius: R.
      delta: probability of failure; None bounds the expectation of that supremum, 2n²dR. (4/√(2π)
        is the proof's constant, which it rounds up to 2.)

    Example:
      >>> gram_perturbation(10, 5, 1e-5).value, round(gram_perturbation(10, 5, 1e-5, 0.1).value, 6)
      (0.01, 0.1)

    Reference: Nguyen, Wong and Hegde (2019a), Lemma 4.2, (4.6).
    """
    check(n=n, d=d, radius=radius)
    mean = 2 * real(n) ** 2 * d * radius
    if delta is None:
        return Bound(mean, "2n²dR", 2.0, source("proof of Lemma 4.2"))
    check(delta=delta)
    note = "the proof of Corollary 4.1 prints 2n²dRδ"
    return Bound(mean / delta, "2n²dR/δ", 2.0, source("Lemma 4.2, equation (4.6)", note))


def pattern_change_probability(radius: ArrayLike) -> Bound:
    """The bound on P(|z| ≤ R) = erf(R/√2), z ~ N(0, 1): 2R / √(2π).

    Within R of w_r(0) the pattern 1[w·x ≥ 0] can change only where |w_r(0)·x| ≤ R.

    Example:
      >>> round(pattern_change_probability(0.1).value, 5)  # erf(0.1/√2) = 0.07966
      0.07979

    Reference: Nguyen, Wong and Hegde (2019a), proof of Lemma 4.2, after (4.7).
    """
    check(radius=radius)
    constant = 2 / math.sqrt(2 * math.pi)
    return Bound(constant * real(radius), "2R / √(2π)", constant, source("proof of Lemma 4.2"))


def pattern_flips(m: ArrayLike, radius: ArrayLike) -> Bound:
    """The bound on |S_i^⊥|, the patterns of sample i that one step changes: 4mR.

    For all samples and steps, while every ‖w_r − w_r(0)‖ ≤ R; it fails with at most the
    probability `pattern_flips_failure`.

    Example:
      >>> pattern_flips(1000, 0.01).value
      40.0

    Reference: Nguyen, Wong and Hegde (2019a), Lemma A.4, from Song and Yang (2019).
    """
    check(m=m, radius=radius)
    return Bound(4 * real(m) * radius, "4mR", 4.0, source("Lemma A.4"))


def pattern_flips_failure(n: ArrayLike, m: ArrayLike, radius: ArrayLike) -> Bound:
    """The probability that `pattern_flips` fails, n exp(−mR) at most.

    Derived again: |S_i^⊥| is at most a binomial count of mean ≤ 2mR/√(2π), and by Bernstein's
    inequality that exceeds 4mR with probability exp(−2.7 mR) at most.

    Example:
      >>> round(float(pattern_flips_failure(10, 1000, 0.01).value), 6)
      0.000454

    Reference: Nguyen, Wong and Hegde (2019a), Lemma A.4.
    """
    check(n=n, m=m, radius=radius)
    value = n * library(n, m, radius).exp(-real(m) * radius)
    return Bound(value, "n exp(−mR)", 1.0, source("Lemma A.4"))


def unstable_gram_norm(n: ArrayLike, d: ArrayLike, radius: ArrayLike) -> Bound:
    """The bound on ‖K^⊥‖_F, 4ndR, where |S_i^⊥| ≤ 4mR for every i.

    Example:
      >>> unstable_gram_norm(10, 5, 0.01).value
      2.0

    Reference: Nguyen, Wong and Hegde (2019a), proof of Claim B.2.
    """
    check(n=n, d=d, radius=radius)
    return Bound(4 * real(n) * d * radius, "4ndR", 4.0, source("proof of Claim B.2"))


def unstable_gram_term(n: ArrayLike, step_size: ArrayLike, radius: ArrayLike) -> Bound:
    """The bound on C_2 = (2η/d) rᵀK^⊥r, 8ηnR times ‖r‖², r = vec(X − U(k)).

    Example:
      >>> unstable_gram_term(10, 0.5, 0.001).value
      0.04

    Reference: Nguyen, Wong and Hegde (2019a), Claim B.2.
    """
    check(n=n, step_size=step_size, radius=radius)
    value = 8 * (step_size * real(n) * radius)
    return Bound(value, "C_2 ≤ 8ηnR ‖X − U(k)‖²", 8.0, source("Claim B.2"))


def unstable_change_term(
    n: ArrayLike,
    step_size: ArrayLike,
    radius: ArrayLike,
    *,
    m: ArrayLike | None = None,
    printed: bool = False,
) -> Bound:
    """The bound on C_3 = −2 rᵀv_2, 8ηnR times ‖r‖²: ‖v_2‖² ≤ 16 n λ_n R²η² ‖r‖² and λ_n ≤ n.

    Claim B.3 prints 8ηmR; its proof ends with 16 n²R²η² ‖r‖² for ‖v_2‖², hence with 8ηnR, and
    (4.12) has 8ηnR.

    Args:
      n, step_size, radius: n, η and R.
      m: the width, for the printed form alone.

    Raises:
      ValueError: `printed` without `m`.

    Example:
      >>> unstable_change_term(10, 0.5, 0.001).value
      0.04
      >>> unstable_change_term(10, 0.5, 0.001, m=1000, printed=True).value
      4.0

    Reference: Nguyen, Wong and Hegde (2019a), Claim B.3.
    """
    check(n=n, step_size=step_size, radius=radius)
    if not printed:
        value = 8 * (step_size * real(n) * radius)
        note = "n as in the proof; printed m"
        return Bound(value, "C_3 ≤ 8ηnR ‖X − U(k)‖²", 8.0, source("Claim B.3", note))
    if m is None:
        raise ValueError("m is None; the printed Claim B.3 needs the width: pass m.")
    check(m=m)
    value = 8 * (step_size * real(m) * radius)
    return Bound(value, "C_3 ≤ 8ηmR ‖X − U(k)‖²", 8.0, source("Claim B.3", "as printed"))


def squared_change_term(n: ArrayLike, lambda_n: ArrayLike, step_size: ArrayLike) -> Bound:
    """The bound on C_4 = ‖U(k+1) − U(k)‖_F², η²nλ_n times ‖X − U(k)‖_F².

    Example:
      >>> squared_change_term(10, 4.0, 0.5).value
      10.0

    Reference: Nguyen, Wong and Hegde (2019a), Claim B.4.
    """
    check(n=n, lambda_n=lambda_n, step_size=step_size)
    value = step_size**2 * (real(n) * lambda_n)
    return Bound(value, "C_4 ≤ η²nλ_n ‖X − U(k)‖²", 1.0, source("Claim B.4"))


def contraction_factor(
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    step_size: ArrayLike,
    radius: ArrayLike,
) -> Bound:
    """The bound on ‖X − U(k+1)‖_F² / ‖X − U(k)‖_F², 1 − ηλ_0/d + 16ηnR + η²nλ_n.

    It is 1 − ηλ_0/(2d) with η = λ_0/(4ndλ_n) and R = λ_0/(64nd), the choices of the proof.

    Example:
      >>> contraction_factor(1, 1, 0.5, 1.0, 0.125, 0.5 / 64).value  # 1 − ηλ_0/2
      0.96875

    Reference: Nguyen, Wong and Hegde (2019a), (4.12).
    """
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n, step_size=step_size, radius=radius)
    value = (
        1
        + kernel_term(d, lambda_0, step_size).value
        + unstable_gram_term(n, step_size, radius).value
        + unstable_change_term(n, step_size, radius).value
        + squared_change_term(n, lambda_n, step_size).value
    )
    return Bound(value, "1 − ηλ_0/d + 16ηnR + η²nλ_n", 1.0, source("equation (4.12)"))
