"""Table 1 of Nguyen, Wong and Hegde (2019a): their widths beside those of other papers."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import safe_sqrt
from ntkflow.systems.autoencoder.arguments import check, library, real, source
from ntkflow.systems.autoencoder.requirements import required_width
from ntkflow.theory import Bound


class Row(NamedTuple):
    """One entry of Table 1.

    Attributes:
      regime: "weak" (the encoder trains) or "joint" (both layers).
      reference: whose bound it is.
      outputs: "single" or "multiple".
      width: the bound on m.
    """

    regime: Literal["weak", "joint"]
    reference: str
    outputs: Literal["single", "multiple"]
    width: Bound


def table_1(
    n: ArrayLike,
    d: ArrayLike,
    lambda_0: ArrayLike,
    lambda_n: ArrayLike,
    delta: ArrayLike,
    *,
    separation: ArrayLike | None = None,
    constant: ArrayLike = 1.0,
) -> list[Row]:
    """Compute the widths of Table 1, in its order.

    A constant C stands in every entry, and is not the same one: the table compares orders.

    Args:
      n, d: samples and dimension.
      lambda_0: λ_0 = λ_min(G^∞).
      lambda_n: λ_n = ‖XᵀX‖.
      delta: δ.
      separation: Δ, `smallest_separation(x)`; without it the rows of Zou and Gu are left out.
      constant: C.

    Returns:
      Nine rows; seven without Δ.

    Example:
      >>> for row in table_1(20, 10, 0.125, 4.5, 0.1, separation=0.5):
      ...     print(f"{row.regime:5} {row.reference:26} {row.outputs:8} {row.width.value:.1e}")
      weak  Du et al. (2018)           single   2.6e+14
      weak  this work                  single   5.9e+13
      weak  this work                  multiple 5.9e+17
      weak  Oymak and Soltanolkotabi (2019) single   7.5e+06
      joint Du et al. (2018)           single   1.0e+16
      joint Zou and Gu (2019)          single   4.1e+11
      joint Zou and Gu (2019)          multiple 4.1e+12
      joint this work                  single   7.5e+08
      joint this work                  multiple 7.5e+09

    Reference: Nguyen, Wong and Hegde (2019a), Table 1.
    """
    check(n=n, d=d, lambda_0=lambda_0, lambda_n=lambda_n, delta=delta, constant=constant)
    place = source("Table 1")
    size = real(n)

    def entry(value: ArrayLike, formula: str) -> Bound:
        return Bound(constant * value, formula, constant, place)

    def ours(trains: Literal["encoder", "both"], single_output: bool) -> Bound:
        width = required_width(
            trains, n, d, lambda_0, lambda_n, delta, single_output=single_output, constant=constant
        )
        return width._replace(source=place)

    du, oymak, zou = "Du et al. (2018)", "Oymak and Soltanolkotabi (2019)", "Zou and Gu (2019)"
    rows = [
        Row("weak", du, "single", entry(size**6 / (lambda_0**4 * delta**3), "n⁶/(λ_0⁴δ³)")),
        Row("weak", "this work", "single", ours("encoder", True)),
        Row("weak", "this work", "multiple", ours("encoder", False)),
        Row("weak", oymak, "single", entry(size * real(lambda_n) ** 3 / lambda_0**4, "nλ_n³/λ_0⁴")),
        Row("joint", du, "single", du_joint_width(n, lambda_0, delta, constant=constant)),
    ]
    if separation is not None:
        check(separation=separation)
        order = size**8 / separation**4
        rows += [
            Row("joint", zou, "single", entry(order, "n⁸/Δ⁴")),
            Row("joint", zou, "multiple", entry(order * d, "n⁸d/Δ⁴")),
        ]
    return [
        *rows,
        Row("joint", "this work", "single", ours("both", True)),
        Row("joint", "this work", "multiple", ours("both", False)),
    ]


def du_joint_width(
    n: ArrayLike, lambda_0: ArrayLike, delta: ArrayLike, *, constant: ArrayLike = 1.0
) -> Bound:
    """The width of Du et al. (2018), Theorem 3.3: m = C n⁶ log(m/δ) / (λ_0⁴ δ³), solved for m.

    The largest fixed point, by iteration from above; where there is none, every m ≥ 1 will do, and
    the value is 1.

    Example:
      >>> width = du_joint_width(20, 0.125, 0.1).value
      >>> f"{width:.4e}", f"{20**6 * np.log(width / 0.1) / (0.125**4 * 0.1**3):.4e}"
      ('1.0268e+16', '1.0268e+16')

    Reference: Nguyen, Wong and Hegde (2019a), Table 1.
    """
    check(n=n, lambda_0=lambda_0, delta=delta, constant=constant)
    numpy = library(n, lambda_0, delta, constant)
    scale = constant * real(n) ** 6 / (lambda_0**4 * delta**3) / delta  # m/δ = scale log(m/δ)
    some = scale > np.e
    safe = numpy.where(some, scale, 2 * np.e)
    ratio = 2 * safe * numpy.log(safe)  # above the fixed point, as log(2 log s) ≤ log s
    for _ in range(200):  # contracts by 1/log(m/δ) a step, slowly for scale ≈ e alone
        ratio = safe * numpy.log(ratio)
    value = numpy.where(some, numpy.maximum(ratio * delta, 1.0), 1.0)
    return Bound(value, "m = C n⁶ log(m/δ)/(λ_0⁴δ³)", constant, source("Table 1", "solved for m"))


def width_ratio(n: ArrayLike, d: ArrayLike, lambda_n: ArrayLike, delta: ArrayLike) -> Bound:
    """The width for both layers over that for the encoder, λ_n²δ/(n⁴d³): the headline.

    Of the orders as the theorems have them, with the same λ_0 and C. `sufficient_width` compares
    what the corrected proofs give.

    Example:
      >>> f"{width_ratio(20, 10, 4.5, 0.1).value:.3g}"
      '1.27e-08'

    Reference: Nguyen, Wong and Hegde (2019a), section 2.2 and Table 1.
    """
    check(n=n, d=d, lambda_n=lambda_n, delta=delta)
    value = real(lambda_n) ** 2 * delta / (real(n) ** 4 * real(d) ** 3)
    return Bound(value, "λ_n²δ/(n⁴d³)", 1.0, source("Theorems 2.1 and 2.2", "their ratio"))


def smallest_separation(x: ArrayLike) -> jax.Array:
    """Δ, the smallest distance between two samples.

    Args:
      x: samples as rows, shape (n, d), n ≥ 2.

    Raises:
      ValueError: fewer than two samples.

    Example:
      >>> round(float(smallest_separation(jnp.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]))), 4)
      0.8944

    Reference: Nguyen, Wong and Hegde (2019a), caption of Table 1.
    """
    x = checks.matrix("x", x)
    if len(x) < 2:
        raise ValueError(f"x has shape {x.shape}; expected at least two samples.")
    return _smallest_separation(x)


def eigenvalue_from_separation(n: ArrayLike, separation: ArrayLike) -> Bound:
    """The lower bound on λ_0 that Table 1's comparison takes, Δ/(100n²).

    The text calls λ_0 ≥ Δ/(100n²) an upper bound.

    Example:
      >>> eigenvalue_from_separation(10, 0.5).value
      5e-05

    Reference: Nguyen, Wong and Hegde (2019a), section 2.2; Oymak and Soltanolkotabi (2019).
    """
    check(n=n, separation=separation)
    value = separation / (100 * real(n) ** 2)
    return Bound(value, "λ_0 ≥ Δ/(100n²)", 0.01, source("section 2.2", "a lower bound"))


@jax.jit
def _smallest_separation(x: jax.Array) -> jax.Array:
    """Row by row, for all differences at once would take n²d numbers."""

    def nearest(i: jax.Array) -> jax.Array:
        squares = jnp.sum(jnp.square(x - x[i][None]), axis=1)
        return jnp.min(jnp.where(jnp.arange(len(x)) == i, jnp.inf, squares))

    return safe_sqrt(jnp.min(jax.lax.map(nearest, jnp.arange(len(x)))))
