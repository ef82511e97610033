"""What Theorems 3.1–3.3 of Du (2019) ask of width and step size, for the loss ½ Σ_i (f − y)².

Their rate is `error_decay`. The text leaves constants open in Ω(·), O(·), 2^O(H) and poly(p);
`fully_connected_bounds` and `residual_bounds` have them as the proofs determine them. Arguments
are scalars or arrays that broadcast: a `depth` of several H shows how a requirement grows. λ_0
depends on H itself: like 1/H² for the ResNets (Proposition 3.2), like a power cᴴ otherwise.
"""

from typing import Any, Literal, get_args

from jax.typing import ArrayLike

from ntkflow.systems.deep.constants import check, largest, library, power, real, source
from ntkflow.theory import Bound

Architecture = Literal["fully_connected", "resnet", "convolutional_resnet"]

_THEOREM = {"fully_connected": "3.1", "resnet": "3.2", "convolutional_resnet": "3.3"}


def _check_architecture(architecture: str) -> None:
    if architecture not in get_args(Architecture):
        raise ValueError(
            f"architecture is {architecture!r}; expected one of {list(get_args(Architecture))}."
        )


def _dimension(
    architecture: Architecture,
    depth: ArrayLike,
    pixels: ArrayLike,
    exponent: ArrayLike,
    degree: ArrayLike,
) -> tuple[Any, str]:
    """2^(eH), 1 or p^degree, and what the text writes."""
    if architecture == "fully_connected":
        return power(2.0, exponent * real(depth)), "2^O(H)"
    if architecture == "resnet":
        return 1.0, ""
    return power(pixels, degree), "poly(p)"


def required_width(
    architecture: Architecture,
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    *,
    pixels: ArrayLike = 1,
    constant: ArrayLike = 1.0,
    exponent: ArrayLike = 1.0,
    degree: ArrayLike = 2.0,
    printed: bool = False,
) -> Bound:
    """The width m of Theorems 3.1–3.3, the largest of three or four terms times 2^O(H) or poly(p).

    Fully connected: n⁴/λ_0⁴, n/δ, n² log(Hn/δ)/λ_0². ResNets: n⁴/(λ_0⁴ H⁴), n²/λ_0², n/δ and
    n² log(Hn/δ)/λ_0². Theorem 3.2 prints H⁶ in the first and n²/(λ_0² H²) for the second, which
    rest on a Q' that fails for layer 1 and for a (`residual_bounds.gradient_norm`); (3.10) prints
    n⁴/(λ_0⁴ H⁶) and n⁴/(λ_0⁴ H²). The first terms stand for ‖y − u(0)‖ = O(√n), which holds with
    a factor √log(1/δ).

    Args:
      pixels: p, of the convolution alone.
      exponent: e of 2^(eH) for 2^O(H).
      degree: of p^degree for poly(p).

    Example:
      >>> import numpy as np; depths = np.array([2, 4, 8])
      >>> required_width("fully_connected", 10, depths, 0.1, 0.1).value / 1e8
      array([  4.,  16., 256.])
      >>> required_width("resnet", 10, depths, 0.1 / depths**2, 0.1).value / 1e9
      array([  1.6,  25.6, 409.6])
    """
    _check_architecture(architecture)
    check(n=n, depth=depth, lambda_0=lambda_0, delta=delta, pixels=pixels)
    check(constant=constant, exponent=exponent, degree=degree)
    n, H = real(n), real(depth)
    ratio = n / lambda_0
    terms: tuple[Any, ...]
    factor, name = _dimension(architecture, depth, pixels, exponent, degree)
    if architecture == "fully_connected":
        terms, formula = (ratio**4,), "n⁴/λ_0⁴"
    elif not printed:
        terms, formula = (ratio**4 / H**4, ratio**2), "n⁴/(λ_0⁴ H⁴), n²/λ_0²"
    elif architecture == "resnet":
        terms, formula = (ratio**4 / H**6, ratio**2 / H**2), "n⁴/(λ_0⁴ H⁶), n²/(λ_0² H²)"
    else:
        terms, formula = (ratio**4 / H**6, ratio**4 / H**2), "n⁴/(λ_0⁴ H⁶), n⁴/(λ_0⁴ H²)"
    value = constant * factor * largest(*terms, n / delta, _gram_terms(n, H, lambda_0, delta))
    note = "as printed" if printed else "H⁴ and n²/λ_0² as the proof needs; printed H⁶"
    note = "" if architecture == "fully_connected" else note
    place = source(f"Theorem {_THEOREM[architecture]}", note)
    formula = f"m = Ω({name} max{{{formula}, n/δ, n² log(Hn/δ)/λ_0²}})".replace("( ", "(")
    return Bound(value, formula, constant, place)


def _gram_terms(n: ArrayLike, depth: ArrayLike, lambda_0: ArrayLike, delta: ArrayLike) -> Any:
    log = library(n, depth, lambda_0, delta).log
    return (n / real(lambda_0)) ** 2 * log(depth * real(n) / delta)


def initial_gram_width(
    architecture: Architecture,
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    delta: ArrayLike,
    *,
    pixels: ArrayLike = 1,
    constant: ArrayLike = 1.0,
    exponent: ArrayLike = 1.0,
) -> Bound:
    """The width of Lemmas 3.2, 3.9 and 3.16, above which λ_min(G^(H)(0)) ≥ ¾ λ_0.

    n² log(Hn/δ) / λ_0² times 2^O(H), 1, or p². By Theorem 3.4 and Lemma 3.22.

    Example:
      >>> round(initial_gram_width("resnet", 10, 4, 0.1, 0.1).value)
      59915
    """
    _check_architecture(architecture)
    check(n=n, depth=depth, lambda_0=lambda_0, delta=delta, pixels=pixels)
    check(constant=constant, exponent=exponent)
    factor, _ = _dimension(architecture, depth, pixels, exponent, 2.0)
    name = {"fully_connected": "2^O(H) ", "resnet": "", "convolutional_resnet": "p² "}[architecture]
    lemma = {"fully_connected": "3.2", "resnet": "3.9", "convolutional_resnet": "3.16"}
    value = constant * factor * _gram_terms(n, depth, lambda_0, delta)
    formula = f"m = Ω({name}n² log(Hn/δ)/λ_0²)"
    return Bound(value, formula, constant, source(f"Lemma {lemma[architecture]}"))


def required_step_size(
    architecture: Architecture,
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    *,
    pixels: ArrayLike = 1,
    constant: ArrayLike = 1.0,
    exponent: ArrayLike = 1.0,
    degree: ArrayLike = 2.0,
    printed: bool = False,
) -> Bound:
    """The step size η of Theorems 3.1–3.3, λ_0/n² divided by 2^O(H) or poly(p).

    Theorems 3.2 and 3.3 print λ_0 H²/n², which rests on the Q' named in `required_width`: at it
    Lemma 3.14, ‖u(k+1) − u(k)‖² ≤ ηλ_0/8 ‖y − u(k)‖², fails for deep networks.

    Args: as in `required_width`.

    Example:
      >>> required_step_size("resnet", 10, 4, 0.5).value
      0.005
    """
    _check_architecture(architecture)
    check(n=n, depth=depth, lambda_0=lambda_0, pixels=pixels)
    check(constant=constant, exponent=exponent, degree=degree)
    factor, name = _dimension(architecture, depth, pixels, exponent, degree)
    squared = printed and architecture != "fully_connected"
    value = constant * (lambda_0 / real(n) ** 2) / factor * (real(depth) ** 2 if squared else 1.0)
    below = f"(n² {name})" if name else "n²"
    formula = f"η = O(λ_0{' H²' * squared} / {below})"
    note = "as printed" if printed else "printed λ_0 H²/n²"
    note = "" if architecture == "fully_connected" else note
    return Bound(value, formula, constant, source(f"Theorem {_THEOREM[architecture]}", note))


def error_growth(
    architecture: Architecture, depth: ArrayLike, *, constant: ArrayLike = 1.0
) -> Bound:
    """By how much an error of the first layer's kernel grows to the last, (3.4) and (3.5).

    2^(CH) fully connected, (1 + C/H)ᴴ ≤ eᶜ for the ResNets.

    Example:
      >>> import numpy as np; depths = np.array([2, 8, 32])
      >>> error_growth("fully_connected", depths).value.tolist()
      [4.0, 256.0, 4294967296.0]
      >>> error_growth("resnet", depths).value.round(3).tolist()
      [2.25, 2.566, 2.677]
    """
    _check_architecture(architecture)
    check(depth=depth, constant=constant)
    if architecture == "fully_connected":
        value = power(2.0, constant * real(depth))
        return Bound(value, "𝓔_H = 2^(CH) 𝓔_1", constant, source("equation (3.4)"))
    value = power(1 + constant / real(depth), depth)
    return Bound(value, "𝓔_H = (1 + C/H)ᴴ 𝓔_1", constant, source("equation (3.5)"))
