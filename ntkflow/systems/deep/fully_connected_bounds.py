"""What Du (2019), Lemmas 3.3–3.7, promise of the fully connected network (3.2) within a radius.

Throughout: n samples of unit norm, m the width, H = `depth`, λ_0 = λ_min(K^(H)), `residual_norm`
= ‖y − u(k)‖, `constants` those of the activation, and `norms` those of the initial network, for
which the bounds hold without any probability. R is a `radius`: ‖W^(h) − W^(h)(0)‖_F ≤ R √m for all
layers and ‖a − a(0)‖ ≤ R √m. With c_x = 2 √c_σ L c_{w,0} everything grows like a power c_x^H.
Where the text errs, the corrected quantity is the default, and `printed=True` gives the other.
"""

from typing import Any

from jax.typing import ArrayLike

from ntkflow.systems.deep.activations import ActivationConstants
from ntkflow.systems.deep.constants import (
    InitialNorms,
    check,
    check_norms,
    check_smooth,
    geometric_series,
    largest,
    layer_growth,
    power,
    real,
    smallest,
    source,
)
from ntkflow.theory import Bound


def _feature_rate(layers: ArrayLike, constants: ActivationConstants, norms: InitialNorms) -> Any:
    series = geometric_series(layer_growth(constants, norms), layers)
    return constants.normalization**0.5 * constants.lipschitz * norms.feature * series


def feature_change(
    layer: ArrayLike, radius: ArrayLike, constants: ActivationConstants, norms: InitialNorms
) -> Bound:
    """The bound on ‖x^(h) − x^(h)(0)‖ of layer h, √c_σ L c_{x,0} g_{c_x}(h) R, for R ≤ c_{w,0}.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> [round(float(feature_change(h, 0.01, softplus, norms).value), 4) for h in (1, 2, 3)]
      [0.0208, 0.1081, 0.4736]
    """
    check(layer=layer, radius=radius)
    check_norms(norms)
    value = _feature_rate(layer, constants, norms) * radius
    return Bound(value, "√c_σ L c_{x,0} g_{c_x}(h) R", 1.0, source("Lemma 3.3"))


def admissible_radius(
    depth: ArrayLike, constants: ActivationConstants, norms: InitialNorms
) -> Bound:
    """The radius up to which Lemmas 3.4–3.7 speak, the R ≤ c g_{c_x}(H)⁻¹ of the text.

    min{1 / (√c_σ L g_{c_x}(H)), c_{w,0}, a_{2,0}}: features, weights and output at most double.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> [f"{admissible_radius(H, softplus, norms).value:.2g}" for H in (1, 4, 16)]
      ['0.96', '0.01', '3.4e-10']
    """
    check(depth=depth)
    check_norms(norms)
    doubling = norms.feature / _feature_rate(depth, constants, norms)
    value = smallest(doubling, norms.weight, norms.output)
    formula = "R = min{1 / (√c_σ L g_{c_x}(H)), c_{w,0}, a_{2,0}}"
    return Bound(value, formula, 1.0, source("Lemma 3.4", "constants from the proof"))


def gram_change(
    n: ArrayLike,
    depth: ArrayLike,
    radius: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    *,
    printed: bool = False,
) -> Bound:
    """The bound on ‖G^(H) − G^(H)(0)‖_F for R up to the `admissible_radius`, B n R.

    B = (2β c_{x,0} a_{4,0}² + 3 √c_σ L² a_{2,0}²) L c_σ c_{x,0}² g_{c_x}(H) + 12 L² c_{x,0}² c_σ
    a_{2,0}, the sum of I_1, I_2 and I_3 of the proof. The text prints a_{2,0}² as a factor of both
    terms of the bracket.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> [round(float(gram_change(2, H, 1e-4, softplus, norms).value), 3) for H in (1, 2, 4)]
      [0.015, 0.034, 0.441]
    """
    check(n=n, radius=radius)
    value = _gram_rate(depth, constants, norms, printed) * n * radius
    note = "as printed" if printed else "a_{2,0}² in the second term alone"
    return Bound(value, "B n R", 1.0, source("proof of Lemma 3.4", note))


def _gram_rate(
    depth: ArrayLike, constants: ActivationConstants, norms: InitialNorms, printed: bool = False
) -> Any:
    check(depth=depth)
    check_norms(norms)
    check_smooth(constants)
    slope, scale = constants.lipschitz, constants.normalization
    series = geometric_series(layer_growth(constants, norms), depth)
    output = real(norms.output) ** 2
    bend = 2 * constants.smoothness * norms.feature * norms.output_fourth**2
    bracket = bend * (output if printed else 1.0) + 3 * scale**0.5 * slope**2 * output
    common = slope * scale * norms.feature**2
    return bracket * common * series + 12 * common * slope * norms.output


def stable_radius(
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
) -> Bound:
    """R of Lemma 3.4, within which ‖G^(H) − G^(H)(0)‖ ≤ λ_0/4: min{λ_0 / (4nB), admissible}.

    B of `gram_change` and `admissible_radius` are the c g_{c_x}(H)⁻¹ that the text leaves open.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> [f"{stable_radius(10, H, 0.1, softplus, norms).value:.2g}" for H in (1, 4, 16)]
      ['3.3e-05', '1.1e-06', '4e-14']
    """
    check(n=n, lambda_0=lambda_0)
    confined = lambda_0 / (4 * real(n) * _gram_rate(depth, constants, norms))
    value = smallest(confined, admissible_radius(depth, constants, norms).value)
    place = source("Lemma 3.4", "constant from the proof")
    return Bound(value, "R = min{λ_0 / (4nB), admissible}", 1.0, place)


def gradient_norm(
    n: ArrayLike,
    depth: ArrayLike,
    residual_norm: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
) -> Bound:
    """Q', the bound on every ‖∂L/∂W^(h)‖_F and ‖∂L/∂a‖: 4 c_{x,0} a_{2,0} c_x^H √n ‖y − u‖.

    c_x = max{2 √c_σ L c_{w,0}, 1}; within the `admissible_radius`, and for a_{2,0} ≥ 1/2.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> round(float(gradient_norm(4, 2, 1.0, softplus, norms).value), 1)
      283.5
    """
    check(n=n, residual_norm=residual_norm)
    value = _gradient_rate(depth, constants, norms) * real(n) ** 0.5 * residual_norm
    return Bound(value, "Q' = 4 c_{x,0} a_{2,0} c_x^H √n ‖y − u‖", 1.0, source("Lemma 3.5"))


def _gradient_rate(depth: ArrayLike, constants: ActivationConstants, norms: InitialNorms) -> Any:
    check(depth=depth)
    check_norms(norms)
    growth = largest(layer_growth(constants, norms), 1.0)
    return 4 * norms.feature * norms.output * power(growth, depth)


def largest_distance(
    n: ArrayLike,
    m: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    residual_norm: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
) -> Bound:
    """R', the bound on every ‖W^(h) − W^(h)(0)‖_F / √m and ‖a − a(0)‖ / √m, while loss decays.

    4 Q' / (λ_0 √m) with ‖y − u(0)‖ as `residual_norm`; where it is below the `admissible_radius`.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> round(float(largest_distance(4, 10**8, 2, 0.1, 1.0, softplus, norms).value), 3)
      1.134
    """
    check(m=m, lambda_0=lambda_0)
    gradient = gradient_norm(n, depth, residual_norm, constants, norms).value
    value = 4 * gradient / (lambda_0 * real(m) ** 0.5)
    formula = "R' = 16 c_{x,0} a_{2,0} c_x^H √n ‖y − u(0)‖ / (λ_0 √m)"
    return Bound(value, formula, 1.0, source("Lemma 3.5"))


def confined_width(
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    residual_norm: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
) -> Bound:
    """The width above which R' < R, (4 Q' / (λ_0 R))², with R the `stable_radius`.

    It is the n⁴ / λ_0⁴ · 2^O(H) of Theorem 3.1, with its constants, where `residual_norm` is
    O(√n): of the order of c_x^(4H), as R itself falls like c_x^(−H).

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> [f"{confined_width(4, H, 0.1, 3.0, softplus, norms).value:.2g}" for H in (1, 2, 4)]
      ['9.5e+15', '8.4e+17', '4.4e+22']
    """
    distance = largest_distance(n, 1, depth, lambda_0, residual_norm, constants, norms).value
    value = (distance / stable_radius(n, depth, lambda_0, constants, norms).value) ** 2
    place = source("proof of Theorem 3.1", "constants from Lemmas 3.4 and 3.5")
    return Bound(value, "m = (4 Q' / (λ_0 R))²", 1.0, place)


def second_order_change(
    n: ArrayLike,
    m: ArrayLike,
    depth: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
) -> Bound:
    """The bound on ‖I_2(k)‖, ½ η² √n κ Q'², κ as the proof of Lemma 3.6 has it, with all its terms.

    κ = 4 c_{x,0} a_{2,0} √c_σ L g ((√c_σ L g + 1/(2a_{2,0}) + H/(2c_{w,0})) / √m + 2β c_{x,0} H g
    / L) + 2 √c_σ L c_{x,0} g / √m with g = g_{c_x}(H); the last term is that of ∂u/∂a, which the
    text leaves out of the sum over layers. The text has g_{2c_x} for g, a factor √c_σ L too many
    in its bound on J, and H c_x^H for Σ_h c_x^(H−h) = g.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> bound = second_order_change(4, 10**8, 2, 1e-7, 1.0, softplus, norms)
      >>> f"{bound.value:.3g}"
      '3.64e-07'
    """
    check(step_size=step_size)
    gradient = gradient_norm(n, depth, residual_norm, constants, norms).value
    rate = _second_order_rate(m, depth, constants, norms)
    value = 0.5 * real(step_size) ** 2 * real(n) ** 0.5 * rate * gradient**2
    place = source("proof of Lemma 3.6", "constants derived, with ∂u/∂a")
    return Bound(value, "½ η² √n κ Q'²", 1.0, place)


def _second_order_rate(
    m: ArrayLike, depth: ArrayLike, constants: ActivationConstants, norms: InitialNorms
) -> Any:
    check(m=m, depth=depth)
    check_norms(norms)
    check_smooth(constants)
    slope, root = constants.lipschitz, real(m) ** 0.5
    unit = constants.normalization**0.5 * slope
    series = geometric_series(layer_growth(constants, norms), depth)
    relative = unit * series + 0.5 / norms.output + 0.5 * depth / norms.weight
    bend = 2 * constants.smoothness * norms.feature * depth * series / slope
    hidden = 4 * norms.feature * norms.output * unit * series * (relative / root + bend)
    return hidden + 2 * unit * norms.feature * series / root


def squared_change(
    n: ArrayLike,
    depth: ArrayLike,
    step_size: ArrayLike,
    residual_norm: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
) -> Bound:
    """The bound on ‖u(k+1) − u(k)‖², 8 n η² c_{x,0}² Q'² (1 + 4 c_σ L² a_{2,0}² g_{c_x}(H)²).

    The text prints 4n (2 η √c_σ L c_{x,0} a_{2,0}² g_{2c_x}(H) Q')² for the second term: half of
    what ‖a(k)‖ ≤ 2 a_{2,0} √m gives, and a square of a_{2,0} too many.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> round(float(squared_change(4, 2, 1e-6, 1.0, softplus, norms).value), 6)
      0.001237
    """
    check(step_size=step_size)
    gradient = gradient_norm(n, depth, residual_norm, constants, norms).value
    value = _squared_rate(depth, constants, norms) * n * (real(step_size) * gradient) ** 2
    formula = "8 n η² c_{x,0}² Q'² (1 + 4 c_σ L² a_{2,0}² g_{c_x}(H)²)"
    return Bound(value, formula, 1.0, source("proof of Lemma 3.7", "constants derived"))


def _squared_rate(depth: ArrayLike, constants: ActivationConstants, norms: InitialNorms) -> Any:
    moved = 2 * norms.output * _feature_rate(depth, constants, norms)
    return 8 * (real(norms.feature) ** 2 + moved**2)


def largest_step_size(
    n: ArrayLike,
    m: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    residual_norm: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
) -> Bound:
    """The η up to which Lemmas 3.6 and 3.7 hold, each with ηλ_0/8, constants from the proofs.

    The smaller of the η at which `second_order_change` is ηλ_0 ‖y − u(0)‖ / 8, with
    `residual_norm` = ‖y − u(0)‖, and that at which `squared_change` is ηλ_0 ‖y − u(k)‖² / 8.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> f"{largest_step_size(4, 10**8, 2, 0.1, 3.0, softplus, norms).value:.2g}"
      '1e-11'
    """
    check(n=n, lambda_0=lambda_0, residual_norm=residual_norm)
    squared_gradient = real(n) * _gradient_rate(depth, constants, norms) ** 2
    rate = _second_order_rate(m, depth, constants, norms)
    second = lambda_0 / (4 * real(n) ** 0.5 * rate * squared_gradient * residual_norm)
    square = lambda_0 / (8 * real(n) * _squared_rate(depth, constants, norms) * squared_gradient)
    place = source("Lemmas 3.6 and 3.7", "constants from the proofs")
    formula = "η = λ_0 / 4 · min{1 / (n^1.5 κ q² ‖y − u(0)‖), 1 / (2 n² ν q²)}"
    return Bound(smallest(second, square), formula, 1.0, place)


def lemma_step_size(
    n: ArrayLike,
    depth: ArrayLike,
    lambda_0: ArrayLike,
    constants: ActivationConstants,
    norms: InitialNorms,
    *,
    constant: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """The step size of Lemmas 3.6 and 3.7 in the text's form, with its constant c.

    c λ_0 / (n² H² c_x^(3H) g_{2c_x}(H)) or c λ_0 / (n² c_x^(2H) g_{2c_x}(H)²), the smaller. The
    second is what the proof of Lemma 3.7 gives; the text prints c λ_0 / (n² H² c_x^(2H)
    g_{2c_x}(H)), above the first always.

    Example:
      >>> softplus = ActivationConstants(0.6931, 1.0, 0.25, 1.0855)
      >>> norms = InitialNorms(2.01, 2.0, 1.01, 1.4)
      >>> steps = [lemma_step_size(4, 20, 0.1, softplus, norms, printed=p) for p in (False, True)]
      >>> [f"{step.value:.2g}" for step in steps]
      ['5.3e-63', '1.9e-60']
    """
    check(n=n, depth=depth, lambda_0=lambda_0, constant=constant)
    check_norms(norms)
    growth = largest(layer_growth(constants, norms), 1.0)
    series = geometric_series(2 * growth, depth)
    order = real(depth) ** 2 * power(growth, 3 * real(depth)) * series
    if not printed:
        order = largest(order, power(growth, 2 * real(depth)) * series**2)
    value = constant * (lambda_0 / (real(n) ** 2 * order))
    note = "as printed" if printed else "g_{2c_x}(H)² in Lemma 3.7, as its proof has it"
    formula = "η = c λ_0 / (n² H² c_x^(3H) g_{2c_x}(H)), and with c_x^(2H) g_{2c_x}(H)²"
    return Bound(value, formula, constant, source("Lemmas 3.6 and 3.7", note))
