"""What Assumption 2 and Theorem 3 ask of an activation and of data, and what breaks it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.breaks import piecewise
from ntkflow.kernels.hermite import hermite_coefficients, hermite_norm
from ntkflow.systems.shallow_smooth.arguments import Activation, check_activation, check_number
from ntkflow.systems.shallow_smooth.exponents import homogeneity_exponents
from ntkflow.systems.shallow_smooth.spectra import slope_bounds

_END = 12.5  # where the rule of `hermite_norm` ends
_ORDERS = ("φ", "φ'", "φ''")


def broken_assumptions(
    activation: Activation,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    *,
    omega1: ArrayLike = 1.0,
    t: int | None = None,
) -> dict[str, str]:
    """Name what an activation and data break of Assumption 2 and of the conditions of Theorem 3.

    The paper says that GELU, sigmoid and tanh satisfy Assumption 2, and sigmoid, tanh and ELU the
    condition on the exponents. Sigmoid breaks both, φ(0) = ½ and no r₂; softplus without − log 2
    likewise; GELU and SiLU have no r₂, so that Theorem 3 speaks of them for ω₁ = 1 alone; φ'' of
    ELU jumps. Bounds in this package that need one of these still return a number.

    Args:
      activation: φ, with values that are known on the host.
      x: inputs, shape (n, d_0), of norm 1.
      y: labels, shape (n, d_2), whose norm, of the whole matrix, is at most 1.
      omega1: ω₁; where it is not 1, finite exponents are asked for.
      t: the power of Theorem 3; None asks for none. A coefficient counts as 0 below 1e-4, and c_0
        too must not be 0 where t ≥ 2 (footnote 5).

    Returns:
      A sentence for each that is broken; none where the theorem speaks. Of the keys
      "differentiable", "value_at_zero", "slope", "curvature", "norm", "exponents", "coefficient",
      "mean", "unit_inputs", "labels".

    Raises:
      ValueError: `activation` is no elementwise function, x or y are no matrices of one length, ω₁
        is not greater than 0, t is not a positive whole number, or φ closes over traced values.

    Example:
      >>> broken_assumptions(jnp.tanh)
      {}
      >>> broken_assumptions(jax.nn.sigmoid, omega1=0.5)["value_at_zero"]
      'φ(0) is 0.5; expected 0: subtract it.'

    Reference: Song et al. (2021), Assumption 2, Theorem 3 and footnotes 3 and 5.
    """
    check_activation(activation)
    if not all(checks.is_concrete(value) for value in (x, y, omega1)):
        raise ValueError("x, y or omega1 is traced; expected values: call it outside of jit.")
    check_number(omega1=omega1)
    deviation = float(np.asarray(omega1))
    t = None if t is None else checks.positive_int("t", t)
    broken = dict(_of_activation(activation, jnp.result_type(float)))
    names = (("slope", "φ'"), ("curvature", "φ''"))
    for (name, symbol), bound in zip(names, slope_bounds(activation), strict=True):
        if not np.isfinite(bound):
            broken[name] = f"sup |{symbol}| is infinite; expected a finite number."
    r1, r2 = (0.0, 0.0) if deviation == 1 else homogeneity_exponents(activation)
    if not np.isfinite([r1, r2]).all():
        broken["exponents"] = (
            f"r₁ is {r1:.4g} and r₂ {r2:.4g}; expected finite ones, as ω₁ is {deviation:.4g}: "
            "take ω₁ = 1, or `expected_feature_gram`, which needs no exponents."
        )
    if t is not None:
        with jax.ensure_compile_time_eval():
            coefficients = np.asarray(hermite_coefficients(activation, t + 1))
        if abs(coefficients[t]) < 1e-4:
            broken["coefficient"] = f"c_{t} is 0; expected another power t: c_t² bounds σ_min."
        if t >= 2 and abs(coefficients[0]) < 1e-4:
            broken["mean"] = "c_0 is 0, as for every odd φ; expected another φ where t ≥ 2."
    return broken | _of_data(x, y)


@functools.lru_cache(maxsize=64)  # it compiles
def _of_activation(activation: Activation, dtype: jnp.dtype) -> dict[str, str]:
    broken: dict[str, str] = {}
    eps = float(jnp.finfo(dtype).eps)
    found = piecewise(activation)[0]

    @jax.jit
    def values():
        points = found.function(jnp.asarray([0.0, -_END, _END], dtype))
        orders = range(len(_ORDERS) if found.breaks else 0)
        jumps = [jnp.abs(found.differentiate(order).jumps(dtype)) for order in orders]
        return points, jumps, hermite_norm(activation)

    with jax.ensure_compile_time_eval():
        (at_zero, *ends), jumps, norm = jax.tree.map(np.asarray, values())
    for name, sizes in zip(_ORDERS, jumps, strict=False):
        where = [b for b, size in zip(found.breaks, sizes, strict=True) if size > 1e4 * eps]
        if where:
            broken["differentiable"] = f"{name} jumps at {where}; expected φ in C²."
            break
    if abs(at_zero) > 16 * eps:
        broken["value_at_zero"] = f"φ(0) is {at_zero:.4g}; expected 0: subtract it."
    # Of a norm that is infinite, what lies at the ends of the rule is not small beside the rest.
    if not np.isfinite(norm) or np.abs(ends).max() * np.exp(-(_END**2) / 4) > 1e-3 * norm:
        broken["norm"] = "E[φ(z)²] is infinite; expected a finite Hermite norm."
    return broken


def _of_data(x: ArrayLike | None, y: ArrayLike | None) -> dict[str, str]:
    broken: dict[str, str] = {}
    if x is not None and y is not None:
        checks.same_length(x=x, y=y)
    if x is not None:
        inputs = np.asarray(checks.matrix("x", x))
        norms = np.linalg.norm(inputs.astype(float), axis=1)
        slack = (8 + inputs.shape[1] ** 0.5) * float(jnp.finfo(inputs.dtype).eps)
        (rows,) = np.nonzero(np.abs(norms - 1) > slack)
        if rows.size:
            broken["unit_inputs"] = (
                f"{rows.size} of {len(inputs)} inputs have no norm 1, the first row {rows[0]} with "
                f"{norms[rows[0]]:.4g}; expected 1: divide by the norms."
            )
    if y is not None:
        norm = float(np.linalg.norm(np.asarray(checks.matrix("y", y))))
        if norm > 1 + 1e-6:
            broken["labels"] = f"‖Y‖ is {norm:.4g}; expected at most 1: divide by it."
    return broken
