"""Runs on Σ_i ‖V φ(W x_i) − y_i‖², both layers trained, held against Song et al. (2021), Theorem 3.

Record in float64: a run that the theorem speaks of moves its weights little.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems import composite
from ntkflow.systems.composite.constants import NearIsometry
from ntkflow.systems.records import DIVERGENCE_IS_DATA, check_history
from ntkflow.systems.shallow_smooth import bounds, network_bounds
from ntkflow.systems.shallow_smooth.arguments import Activation, check, check_activation
from ntkflow.systems.shallow_smooth.assumptions import broken_assumptions
from ntkflow.systems.shallow_smooth.initialization import Scales, largest_product
from ntkflow.systems.shallow_smooth.observables import step_observables
from ntkflow.systems.shallow_smooth.requirements import required_width, requirement
from ntkflow.systems.shallow_smooth.setting import (
    SLACK,
    DataConstants,
    Slack,
    data_constants,
    has_mean,
)
from ntkflow.systems.shallow_smooth.spectra import ActivationConstants, constants
from ntkflow.theory import Bound, Certificate, Inequality, inequality

_LARGEST = float(np.finfo(np.float64).max)
_PLACE = "Song et al. (2021), Assumption 2"


@DIVERGENCE_IS_DATA
def certificate_gradient_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    width: int,
    scales: Scales,
    activation: Activation,
    *,
    t: int = 2,
    delta: float = 0.1,
    output_norm_constant: float = 1.0,
    slack: Slack = SLACK,
    sharpened: bool = False,
) -> Certificate:
    """Hold a run of plain gradient descent on both layers against Theorem 3.

    Hypotheses: each item of Assumption 2, that on ‖V_k‖ measured along the run; (19) and (74); the
    width, by (20) and by (9) with all terms of the bounds; ψ; and those of Theorem 2, with μ, ν and
    β_Φ of Lemma 3 at Θ_0 and χ = max_k ‖V_k‖. The theorem's condition on φ(τa) is not needed: the
    bounds take the coefficients of z ↦ φ(ω₁z).

    Claims: the bounds at initialization, and what Theorem 2 concludes (ball, singular values in
    [μ/2, 3ν/2], the rate with C = ¼).

    Args:
      history: what `step_observables(activation, η)` recorded, with or without an axis of seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      data: (x, y) of the run, shapes (n, d_0) and (n, d_2). What breaks an assumption is no error:
        it shows as a hypothesis that fails.
      width: d_1.
      scales: ω₁ and ω₂ of the initialization.
      activation: φ.
      t: the power in (20), with c_t ≠ 0.
      delta: the largest ψ, probability of failure.
      output_norm_constant: C in ‖V_k‖ ≤ C φ'_max/φ''_max.
      slack: C_δ.
      sharpened: Theorem 2 in the sharpened form of `composite.bounds`.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0, c_t = 0.

    Example:
      >>> import jax, optax
      >>> from ntkflow.systems.shallow_smooth.network import ShallowSmooth
      >>> from ntkflow.training.descent import descend
      >>> from ntkflow.training.losses import squared_loss
      >>> scales, x, y = Scales(1.0, 1e-3), jnp.eye(2), jnp.array([[0.02], [-0.02]])
      >>> module = ShallowSmooth(64, 1, *scales, activation=jnp.tanh)
      >>> loss, observe = squared_loss(module.apply, "sum"), step_observables(jnp.tanh, 1e-3)
      >>> run = descend(loss, optax.sgd(1e-3), 20, observe=observe, every=10)
      >>> trajectory = jax.jit(lambda key: run(module.init(key, x), (x, y)))(jax.random.key(0))
      >>> certificate = certificate_gradient_descent(
      ...     trajectory.history, trajectory.steps, (x, y), 64, scales, jnp.tanh, t=1
      ... )
      >>> bool(certificate.holds), bool(certificate.applies)
      (True, False)
      >>> [row["statement"] for row in certificate.rows() if row["holds"] < 1]
      ['0 < |c_0| (φ is not odd)', ...]

    Reference: Song et al. (2021), Theorem 3.
    """
    check_activation(activation)
    d_1 = checks.positive_int("width", width)
    check(delta=delta, output_norm_constant=output_norm_constant)
    x, y = data
    x = checks.matrix("x", x)
    checks.same_length(x=x, y=y)
    if jnp.ndim(y) != 2:
        raise ValueError(
            f"y has shape {jnp.shape(y)}; expected (n, d_2), for one output y[:, None]."
        )
    numbers, d_2 = data_constants(x, t, y), jnp.shape(y)[1]
    scales = Scales(*scales)
    phi = constants(activation, terms=max(9, t + 1), scale=np.asarray(scales.omega1, float).item())
    needed = step_observables(activation, 0.0)
    check_history(history, needed, "step_observables(activation, step_size)")
    outputs = np.asarray(history["output_norm"])
    singular = np.asarray(history["feature_singular_values"])
    longest = float(np.linalg.norm(np.asarray(x, float), axis=1).max())
    near = NearIsometry(
        mu=singular[..., 0, 0],
        nu=phi.slope * numbers.norm * outputs[..., 0] + singular[..., 0, 1],
        smoothness=np.asarray(
            network_bounds.smoothness(phi, numbers, outputs.max(axis=-1) * longest).value
        ),
    )
    general = composite.certificate_gradient_descent(
        history, steps, near, network_bounds.SQUARED_SUM, sharpened=sharpened
    )
    setting = (phi, numbers, d_1, d_2, scales, slack)
    return Certificate(
        theorem="Song et al. (2021), Theorem 3: gradient descent on a shallow smooth network",
        hypotheses=(
            *_assumptions(phi, numbers, activation, x, outputs, output_norm_constant),
            *_initialization(*setting),
            *_widths(*setting, delta),
            *general.hypotheses,
        ),
        claims=(*_initial_claims(history, *setting), *general.claims),
    )


def _assumptions(
    phi: ActivationConstants,
    data: DataConstants,
    activation: Activation,
    x: Any,
    outputs: np.ndarray,
    constant: float,
) -> tuple[Inequality, ...]:
    """Assumption 2, item by item; the loss is quadratic where the PL condition holds, see below."""
    deviation = float(np.abs(np.linalg.norm(np.asarray(x, float), axis=1) - 1).max())
    broken = broken_assumptions(activation)
    ratio = constant * phi.slope / phi.curvature if phi.curvature else np.inf
    return (
        inequality("φ(0) = 0", _PLACE, "value_at_zero" in broken, 0.0),
        inequality("φ'_max < ∞", _PLACE, phi.slope, _LARGEST),
        inequality("φ''_max < ∞", _PLACE, phi.curvature, _LARGEST),
        inequality("φ is twice differentiable", _PLACE, "differentiable" in broken, 0.0),
        inequality("‖φ‖_H² = E φ(z)² < ∞", _PLACE, "norm" in broken, 0.0),
        inequality("‖x_i‖ = 1, to 10⁻⁶", _PLACE, deviation, 1e-6),
        inequality("‖Y‖ ≤ 1", _PLACE, data.label_norm, 1.0),
        inequality(
            f"‖V_k‖ ≤ {constant:.3g} φ'_max/φ''_max along the run",
            _PLACE,
            outputs,
            ratio,
            outputs.dtype,
        ),
        inequality(
            "0 < σ_min(X^{*t})", "Song et al. (2021), Theorem 3", np.finfo(float).tiny, data.power
        ),
        inequality(
            "0 < |c_0| (φ is not odd)",
            "Song et al. (2021), appendix E.7, footnote 5",
            np.finfo(float).tiny,
            abs(float(phi.coefficients[0])) if has_mean(phi) else 0.0,
        ),
    )


def _initialization(phi, data, d_1, d_2, scales, slack) -> tuple[Inequality, ...]:
    product = scales.omega1 * scales.omega2
    statements = [("ω₁ω₂ ≤ 1/√(d_0d_1)", largest_product(data.d_0, d_1))]
    if d_1 > 1 and np.isfinite(phi.slope):
        proof = largest_product(data.d_0, d_1, phi.slope)
        statements.append(("ω₁ω₂ ≤ 1/(φ'_max √(d_0d_1) log d_1)", proof))
    return tuple(
        inequality(statement, bound.source, product, bound.value) for statement, bound in statements
    )


def _widths(phi, data, d_1, d_2, scales, slack, delta) -> tuple[Inequality, ...]:
    order = (
        required_width(phi, data, d_2=d_2, slack=slack)
        if has_mean(phi)
        else Bound(np.inf, "d_1 = ∞ for c_0 = 0", 1.0, "Song et al. (2021), (20)")
    )
    statement = f"{order.formula.removeprefix('d_1 = ')} ≤ d_1"
    statement = statement.replace("C", f"{order.constant:.3g}", 1)
    asked = requirement(phi, data, d_1, scales, d_2=d_2, slack=slack)
    return (
        inequality(statement, order.source, order.value, d_1),
        inequality(
            "(73) ≤ α_f μ⁶/(1152 β_Φ²ν²), μ, ν, β_Φ of (76) and (81)",
            "Song et al. (2021), appendix E.6",
            asked.initial_loss,
            asked.largest_initial_loss,
        ),
        inequality("ψ ≤ delta", "Song et al. (2021), appendix E.7", asked.failure, delta),
    )


def _initial_claims(history, phi, data, d_1, d_2, scales, slack) -> tuple[Inequality, ...]:
    singular = np.asarray(history["feature_singular_values"])
    outputs, loss = np.asarray(history["output_norm"]), np.asarray(history["loss"])
    least = bounds.feature_smallest_singular_value(phi, data, d_1, slack=slack)
    most = bounds.feature_largest_singular_value(phi, data, d_1, slack=slack)
    norm = network_bounds.initial_output_norm(d_1, d_2, scales.omega2)
    start = network_bounds.initial_loss(phi, data, d_1, d_2, *scales, slack=slack)
    kind = loss.dtype
    first = singular[..., :1, :]
    return (
        inequality(
            f"{least.formula} ≤ σ_min(φ(W_0X))", least.source, least.value, first[..., 0], kind
        ),
        inequality(
            f"σ_max(φ(W_0X)) ≤ {most.formula}", most.source, first[..., 1], most.value, kind
        ),
        inequality(f"‖V_0‖ ≤ {norm.formula}", norm.source, outputs[..., :1], norm.value, kind),
        inequality(f"h(Θ_0) ≤ {start.formula}", start.source, loss[..., :1], start.value, kind),
    )
