"""What Du (2019), Lemmas 3.10–3.14 and 3.17–3.21, promise of the two ResNets within a radius.

Throughout: `residual` = c_res, `patches` the sizes p and q of the convolution, None for the ResNet
(3.3), of which the formulas are those with p = q = 1; the rest as in `fully_connected_bounds`. With
e = exp(2 √q c_res c_{w,0} L) and c_x = (√c_σ L √q + c_{x,0}/c_{w,0}) e nothing grows with depth.
The text views q as a constant, and drops it in places; where it errs, the corrected quantity is
the default, and `printed=True` gives the other.
"""

from jax.typing import ArrayLike

from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.deep.constants import (
    InitialNorms,
    Patches,
    check,
    real,
    smallest,
    source,
)
from ntkflow.systems.deep.residual_rates import (
    gradient_rate,
    gram_rate,
    growths,
    second_order_rate,
    squared_rate,
)
from ntkflow.theory import Bound


def _place(patches: Patches | None, number: int, note: str = "", proof: bool = False) -> str:
    number = number if patches is None else number + 7
    return source("proof of " * proof + f"Lemma 3.{number}", note)


def feature_change(
    residual: ArrayLike,
    radius: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
) -> Bound:
    """The bound on ‖x^(h) − x^(h)(0)‖_F of every layer, c_x R, for R ≤ c_{w,0}; of any depth.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> round(float(feature_change(0.5, 0.01, softplus, norms).value), 3)
      0.304
    """
    check(radius=radius)
    value = growths(residual, constants, norms, patches)[1] * radius
    formula = "(√c_σ L √q + c_{x,0}/c_{w,0}) exp(2 √q c_res c_{w,0} L) R"
    return Bound(value, formula, 1.0, _place(patches, 10))


def admissible_radius(
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
) -> Bound:
    """The radius up to which Lemmas 3.11–3.14 and 3.18–3.21 speak, the R ≤ c of the text.

    min{c_{x,0} / c_x, c_{w,0}, a_{2,0}}: features, weights and output at most double.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> round(float(admissible_radius(0.5, softplus, norms).value), 3)
      0.2
    """
    doubling = norms.feature / growths(residual, constants, norms, patches)[1]
    value = smallest(doubling, norms.weight, norms.output)
    place = _place(patches, 11, "constants from the proof")
    return Bound(value, "R = min{c_{x,0} / c_x, c_{w,0}, a_{2,0}}", 1.0, place)


def gram_change(
    n: ArrayLike,
    depth: ArrayLike,
    residual: ArrayLike,
    radius: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on ‖G^(H) − G^(H)(0)‖_F for R up to the `admissible_radius`, B n R.

    B = (c_res² / H²) L q (3p L c_{x,0} c_x a_{2,0}² + 2β √(pq) c_{x,0}² a_{4,0}² (2 c_x c_{w,0} +
    c_{x,0}) + 12 √p L c_{x,0}² a_{2,0}). Lemma 3.11 prints L² for L before the second term, too
    small where L < 1; Lemma 3.18 drops factors √q, as it takes ‖φ(x)‖ for ‖x‖.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> [round(float(gram_change(2, H, 0.5, 1e-4, softplus, norms).value), 4) for H in (2, 8)]
      [0.0713, 0.0045]
    """
    check(n=n, radius=radius)
    value = gram_rate(depth, residual, constants, norms, patches, printed) * n * radius
    corrected = "L for L²" if patches is None else "with the factors √q"
    place = _place(patches, 11, "as printed" if printed else corrected, proof=True)
    return Bound(value, "B n R", 1.0, place)


def stable_radius(
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
    *,
    printed: bool = False,
) -> Bound:
    """R within which ‖G^(H) − G^(H)(0)‖ ≤ λ_0/4, the R ≤ c λ_0 H² / n of the text.

    min{λ_0 / (4nB), admissible}, B of `gram_change`. Lemmas 3.11 and 3.18 print λ_0/2, which would
    leave λ_min(G^(H)(k)) ≥ λ_0/4 where the induction needs λ_0/2.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> [f"{stable_radius(10, H, 0.1 / H**2, 0.5, softplus, norms).value:.2g}" for H in (2, 50)]
      ['1.8e-06', '1.8e-06']
    """
    check(n=n, lambda_0=lambda_0)
    part = 2 if printed else 4
    rate = gram_rate(depth, residual, constants, norms, patches)
    admissible = admissible_radius(residual, constants, norms, patches).value
    value = smallest(lambda_0 / (part * real(n) * rate), admissible)
    place = _place(patches, 11, "as printed" if printed else "λ_0/4; printed λ_0/2")
    return Bound(value, f"R = min{{λ_0 / ({part}nB), admissible}}", 1.0, place)


def gradient_norm(
    n: ArrayLike,
    depth: ArrayLike,
    residual_norm: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
    *,
    printed: bool = False,
) -> Bound:
    """Q', the bound on every ‖∂L/∂W^(h)‖_F and ‖∂L/∂a‖_F, within the `admissible_radius`.

    √n ‖y − u‖ times the largest of 4 c_res c_{x,0} a_{2,0} L √(pq) e / H, of layers 2..H;
    2 a_{2,0} √c_σ L √(pq) e, of layer 1; and 2 c_{x,0}, of a. The text prints the first alone: but
    neither layer 1 nor a has the factor c_res/H, so that its Q' fails for deep networks, with
    consequences for width and step size.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> [[round(float(gradient_norm(1, H, 1.0, 0.5, softplus, norms, printed=p).value), 1)
      ...   for H in (2, 50)] for p in (False, True)]
      [[46.0, 15.7], [46.0, 1.8]]
    """
    check(n=n, residual_norm=residual_norm)
    rate = gradient_rate(depth, residual, constants, norms, patches, printed)
    value = rate * real(n) ** 0.5 * residual_norm
    note = "as printed" if printed else "with layer 1 and a, which have no factor 1/H"
    return Bound(value, "Q' = q √n ‖y − u‖", 1.0, _place(patches, 12, note))


def largest_distance(
    n: ArrayLike,
    m: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    residual_norm: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
    *,
    printed: bool = False,
) -> Bound:
    """R', the bound on every ‖W^(h) − W^(h)(0)‖_F / √m and ‖a − a(0)‖_F / √m, while loss decays.

    4 Q' / (λ_0 √m) with ‖y − u(0)‖ as `residual_norm`; where it is below the `admissible_radius`.
    Lemma 3.19 prints a_{2,0} inside the exponent; `printed` takes Q' as printed, and not that.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> round(float(largest_distance(4, 10**8, 50, 0.1, 1.0, 0.5, softplus, norms).value), 3)
      0.126
    """
    check(m=m, lambda_0=lambda_0)
    gradient = gradient_norm(
        n, depth, residual_norm, residual, constants, norms, patches, printed=printed
    ).value
    value = 4 * gradient / (lambda_0 * real(m) ** 0.5)
    note = "as printed" if printed else "with layer 1 and a, which have no factor 1/H"
    return Bound(value, "R' = 4 Q' / (λ_0 √m)", 1.0, _place(patches, 12, note))


def confined_width(
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    residual_norm: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
) -> Bound:
    """The width above which R' < R, (4 Q' / (λ_0 R))², with R the `stable_radius`.

    It is the n⁴ / (λ_0⁴ H⁴) of Theorem 3.2 and the first terms of (3.10), with their constants,
    where `residual_norm` is O(√n). The text has H⁶ for H⁴, by the 1/H of its Q'.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> widths = [confined_width(4, H, 0.1 / H**2, 3.0, 0.5, softplus, norms) for H in (8, 80)]
      >>> [f"{width.value:.2g}" for width in widths]
      ['3e+21', '3e+25']
    """
    distance = largest_distance(
        n, 1, depth, lambda_0, residual_norm, residual, constants, norms, patches
    )
    radius = stable_radius(n, depth, lambda_0, residual, constants, norms, patches)
    theorem = "Theorem 3.2" if patches is None else "Theorem 3.3"
    place = source(f"proof of {theorem}", "constants from the lemmas")
    return Bound((distance.value / radius.value) ** 2, "m = (4 Q' / (λ_0 R))²", 1.0, place)


def second_order_change(
    n: ArrayLike,
    m: ArrayLike,
    depth: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
) -> Bound:
    """The bound on ‖I_2(k)‖, ½ η² √n κ Q'², κ as the proof of Lemma 3.13 has it.

    With M = c_res (4√q β c_{w,0} z + √q L/√m), z = √q (c_{w,0} c_x + c_{x,0}), the relative change
    of the layers above, κ = q_h (c_x / (2 c_{x,0} √m) + 1 / (2 a_{2,0} √m) + 2βz/L + M) H + q_1 (1
    / (2 a_{2,0} √m) + √q β/L + M) + c_x/√m, with the rates q_h and q_1 of layers 2..H and 1 in
    `gradient_norm`. The text leaves out layer 1 and a, and prints e^(2L c_{w,0}) without c_res.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> bound = second_order_change(4, 10**8, 50, 1e-6, 1.0, 0.5, softplus, norms)
      >>> f"{bound.value:.3g}"
      '1.02e-05'
    """
    check(step_size=step_size)
    gradient = gradient_norm(n, depth, residual_norm, residual, constants, norms, patches).value
    rate = second_order_rate(m, depth, residual, constants, norms, patches)
    value = 0.5 * real(step_size) ** 2 * real(n) ** 0.5 * rate * gradient**2
    note = "constants derived, with layer 1 and a"
    return Bound(value, "½ η² √n κ Q'²", 1.0, _place(patches, 13, note, proof=True))


def squared_change(
    n: ArrayLike,
    depth: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
) -> Bound:
    """The bound on ‖u(k+1) − u(k)‖², 8 n η² Q'² (c_{x,0}² + p a_{2,0}² c_x²).

    The text prints 4n p (η a_{2,0} c_x Q')² for the second term, half of what ‖a(k)‖ ≤ 2 a_{2,0}
    √(pm) gives.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> round(float(squared_change(4, 50, 1e-6, 1.0, 0.5, softplus, norms).value), 8)
      3.1e-05
    """
    check(step_size=step_size)
    gradient = gradient_norm(n, depth, residual_norm, residual, constants, norms, patches).value
    rate = squared_rate(residual, constants, norms, patches)
    value = rate * n * (real(step_size) * gradient) ** 2
    place = _place(patches, 14, "constants derived", proof=True)
    return Bound(value, "8 n η² Q'² (c_{x,0}² + p a_{2,0}² c_x²)", 1.0, place)


def largest_step_size(
    n: ArrayLike,
    m: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    residual_norm: ArrayLike,
    residual: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    patches: Patches | None = None,
) -> Bound:
    """The η up to which Lemmas 3.13 and 3.14 hold, each with ηλ_0/8, constants from the proofs.

    The smaller of the η at which `second_order_change` is ηλ_0 ‖y − u(0)‖ / 8, with
    `residual_norm` = ‖y − u(0)‖, and that at which `squared_change` is ηλ_0 ‖y − u(k)‖² / 8. It is
    O(λ_0 / n²): the λ_0 H² / n² of the text rests on its Q', and ‖u(k+1) − u(k)‖² ≤ ηλ_0/8 ‖y −
    u(k)‖² fails at it for deep networks, whatever its constant.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 6.1, 1.01, 1.4)
      >>> f"{largest_step_size(4, 10**8, 50, 0.1, 3.0, 0.5, softplus, norms).value:.2g}"
      '4e-10'
    """
    check(n=n, lambda_0=lambda_0, residual_norm=residual_norm)
    gradient = gradient_rate(depth, residual, constants, norms, patches)
    squared_gradient = real(n) * gradient**2
    rate = second_order_rate(m, depth, residual, constants, norms, patches)
    second = lambda_0 / (4 * real(n) ** 0.5 * rate * squared_gradient * residual_norm)
    squared = squared_rate(residual, constants, norms, patches)
    square = lambda_0 / (8 * real(n) * squared * squared_gradient)
    place = source(
        "Lemmas 3.13 and 3.14" if patches is None else "Lemmas 3.20 and 3.21",
        "constants from the proofs; printed with H²",
    )
    formula = "η = λ_0 / 4 · min{1 / (n^1.5 κ q² ‖y − u(0)‖), 1 / (2 n² ν q²)}"
    return Bound(smallest(second, square), formula, 1.0, place)
