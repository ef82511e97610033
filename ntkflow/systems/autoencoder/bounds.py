"""What Nguyen, Wong and Hegde (2019a) promise of a run on ½ ‖X − U‖_F², whatever layer trains.

Throughout: n samples of unit norm, d their dimension, m the width, λ_0 the smallest eigenvalue of
the limiting kernel, λ_n = ‖XᵀX‖, δ the probability of failure. Arguments are scalars or arrays
that broadcast. Where the text errs, the corrected quantity is the default, and `printed=True` gives
the other.
"""

from jax.typing import ArrayLike

from ntkflow.systems.autoencoder.arguments import check, library, real, source
from ntkflow.theory import Bound


def error_decay_flow(times: ArrayLike, d: ArrayLike, lambda_0: ArrayLike) -> Bound:
    """The bound on ‖X − U(t)‖_F² / ‖X − U(0)‖_F² along the flow, exp(−λ_0 t / d).

    Where `λ_min(K(s)) ≥ λ_0/2` up to t. Lemma 5.6 (ii) and the proof of Theorem 5.1 lose the t.

    Example:
      >>> error_decay_flow(4.0, 2, 0.5).value.round(4).item()
      0.3679

    Reference: Nguyen, Wong and Hegde (2019a), Theorems 4.1 and 5.1, (4.8), (5.13).
    """
    check(d=d, lambda_0=lambda_0)
    value = library(times, d, lambda_0).exp(lambda_0 / d * -real(times))
    place = source("Theorems 4.1 and 5.1, Lemmas 4.3, 5.3 and 5.6", "Lemma 5.6 loses the t")
    return Bound(value, "exp(−λ_0 t / d)", 1.0, place)


def error_decay_descent(
    steps: ArrayLike, d: ArrayLike, lambda_0: ArrayLike, step_size: ArrayLike
) -> Bound:
    """The bound on ‖X − U(k)‖_F² / ‖X − U(0)‖_F² along gradient descent, (1 − ηλ_0/(2d))^k.

    Example:
      >>> error_decay_descent(2, 5, 0.5, 2.0).value.round(4).item()
      0.81

    Reference: Nguyen, Wong and Hegde (2019a), (4.9) and (5.15).
    """
    check(d=d, lambda_0=lambda_0, step_size=step_size)
    base = 1 - step_size * lambda_0 / (2 * real(d))
    value = library(steps, base).power(base, real(steps))
    place = source("Theorems 4.2 and 5.2, equations (4.9) and (5.15)")
    return Bound(value, "(1 − ηλ_0/(2d))ᵏ", 1.0, place)


def expected_initial_error(n: ArrayLike) -> Bound:
    """E ‖X − U(0)‖_F² = 3n/2, exactly, for Rademacher and for Gaussian decoders.

    Example:
      >>> expected_initial_error(20).value
      30.0

    Reference: Nguyen, Wong and Hegde (2019a), proof of Claim 4.1.
    """
    check(n=n)
    return Bound(1.5 * real(n), "3n/2", 1.5, source("proof of Claim 4.1", "exact"))


def initial_error(n: ArrayLike, delta: ArrayLike, *, printed: bool = False) -> Bound:
    """The bound on ‖X − U(0)‖_F², 3n/(2δ), by Markov's inequality.

    Claim 4.1 prints 2n/δ, which is true and looser; the proof of Theorem 5.1 has 3n/(2δ).

    Example:
      >>> [round(initial_error(20, 0.1, printed=printed).value) for printed in (False, True)]
      [300, 400]

    Reference: Nguyen, Wong and Hegde (2019a), Claim 4.1 and proof of Theorem 5.1.
    """
    check(n=n, delta=delta)
    constant = 2.0 if printed else 1.5
    note = "as printed; looser" if printed else "3/2 as in the proof of Theorem 5.1; printed 2"
    formula = "2n/δ" if printed else "3n/(2δ)"
    return Bound(constant * real(n) / delta, formula, constant, source("Claim 4.1", note))


def kernel_term(d: ArrayLike, lambda_0: ArrayLike, step_size: ArrayLike) -> Bound:
    """The bound on C_1 / ‖X − U(k)‖_F², −ηλ_0/d, where λ_min(K(k)) ≥ λ_0/2.

    Example:
      >>> kernel_term(5, 0.5, 2.0).value
      -0.2

    Reference: Nguyen, Wong and Hegde (2019a), Claims B.1 and C.4.
    """
    check(d=d, lambda_0=lambda_0, step_size=step_size)
    value = -(step_size * lambda_0 / real(d))
    return Bound(value, "C_1 ≤ −(ηλ_0/d) ‖X − U(k)‖²", 1.0, source("Claims B.1 and C.4"))
