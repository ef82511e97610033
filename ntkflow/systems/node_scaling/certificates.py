"""Runs of the node-scaled network, loss ½ Σ_i (f(x_i) − y_i)², held against the theorems.

The widths that they ask for are out of reach (10²⁴ for the simulated data): as a rule their
hypotheses fail, and the claims may hold all the same. An assumption that data, activation or
network break is a hypothesis that fails, by its number. `certificate_lemmas` speaks of any width.
Record in float64 where η is the theorem's: in float32 updates of the weights are lost to rounding.
"""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.node_scaling import bounds, bounds_descent, bounds_relu, bounds_smooth
from ntkflow.systems.node_scaling.bounds import Setting
from ntkflow.systems.node_scaling.concentration import initial_smallest_eigenvalue
from ntkflow.systems.node_scaling.network import Activation
from ntkflow.systems.node_scaling.observables import observables
from ntkflow.systems.node_scaling.run import (
    Run,
    assumptions,
    read,
    requirements,
    setting_of,
)
from ntkflow.systems.records import DIVERGENCE_IS_DATA, tightest
from ntkflow.theory import Certificate, Inequality


@DIVERGENCE_IS_DATA
def certificate_gradient_flow(
    history: Mapping[str, ArrayLike],
    times: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    scales: ArrayLike,
    gamma: ArrayLike,
    *,
    activation: Activation,
    delta: float = 0.1,
    label_bound: float | None = None,
    variance: float = 1.0,
) -> Certificate:
    """Hold a gradient flow against Theorem 4.1, or for ReLU against Theorem A.1.

    It is ReLU's where σ'' is unbounded. (a) γκ_n/4 ≤ λ_min(Θ), (b) L(t) ≤ exp(−γκ_n t/2) L(0), (c)
    no node moves further than `weight_distance`, (d) no kernel than `gram_change`; and what the
    proofs begin with, the kernel and the residual at initialization.

    Args:
      history: what `observables(activation)` recorded, with or without a leading axis of seeds.
      times: of the records, from 0 on; `trajectory.steps`.
      data: (x, y) of the run, shapes (n, d) and (n,).
      scales, gamma: λ, shape (m,), and its γ.
      activation: σ of the network.
      delta: δ, the probability of failure over the initialization.
      label_bound: C; None takes max |y_i|.
      variance: v of the weights; with another than 1, κ_n and C_1 are those of these weights.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0, λ is no scale, or x and y are no
        data. What breaks an assumption is a failed hypothesis.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ntkflow.systems.node_scaling.network import NodeScaledNetwork
      >>> from ntkflow.training.flow import gradient_flow
      >>> from ntkflow.training.losses import squared_loss
      >>> scales, x, y = jnp.full(64, 1 / 64), jnp.eye(2), jnp.array([0.5, -0.5])
      >>> module = NodeScaledNetwork(scales, activation=jnp.sin)
      >>> run = gradient_flow(
      ...     squared_loss(module.apply), [0.0, 1.0, 2.0], observe=observables(jnp.sin)
      ... )
      >>> trajectory = jax.jit(lambda key: run(module.init(key, x), (x, y)))(jax.random.key(0))
      >>> certificate = certificate_gradient_flow(
      ...     trajectory.history, trajectory.steps, (x, y), scales, 1.0, activation=jnp.sin
      ... )
      >>> bool(certificate.holds), [e.statement[-5:] for e in certificate.hypotheses if not e.holds]
      (True, [') ≤ m', ') ≤ m', ') ≤ m'])

    References:
      Caron et al. (2023), section 4 and appendix A.
    """
    network = (scales, gamma, activation, variance)
    run = read(history, observables(activation), "observables(activation)", times, data, *network)
    record, setting = run.record, setting_of(run, delta, label_bound)
    smooth = run.smooth
    if smooth:
        name, theorem = "smooth", "Theorem 4.1"
        conditions = bounds_smooth.width_conditions(setting)
        distance = bounds_smooth.weight_distance(setting, run.scales)
        change = bounds_smooth.gram_change(setting, run.scales)
    else:
        # The proof for ReLU bounds the second moment of the outputs by 1/d.
        setting = setting._replace(second_moment=1 / setting.d)
        name, theorem = "ReLU", "Theorem A.1"
        conditions = bounds_relu.width_conditions_relu(setting)
        distance = bounds_relu.weight_distance_relu(setting, run.scales)
        change = bounds_relu.gram_change_relu(setting, run.scales)
    least = bounds.run_smallest_eigenvalue(setting).value
    decay = bounds.loss_decay(run.steps, least).value
    return Certificate(
        theorem=f"Caron et al. (2023), {theorem}: gradient flow, {name} activation",
        hypotheses=(
            *assumptions(run, smooth=smooth, label_bound=label_bound),
            *requirements(run, setting, conditions),
        ),
        claims=(
            *_initial_claims(run, setting),
            run.claim(
                "γκ_n/4 ≤ λ_min(Θ)", f"{theorem}, (a)", least, record["gram_smallest_eigenvalue"]
            ),
            run.decay("L(t) ≤ exp(−γκ_n t/2) L(0)", f"{theorem}, (b)", decay),
            run.claim(
                "‖w_j − w_j(0)‖ ≤ √λ_j R",
                f"{theorem}, (c)",
                *tightest(record["weight_distance"], np.asarray(distance.value)),
            ),
            run.claim(
                "‖Θ − Θ(0)‖ ≤ " + ("O(√(Σ_j λ_j²))" if smooth else "O(√(Σ_j λ_j^(3/2)))"),
                f"{theorem}, (d)",
                record["gram_change"],
                change.value,
            ),
        ),
    )


@DIVERGENCE_IS_DATA
def certificate_gradient_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    scales: ArrayLike,
    gamma: ArrayLike,
    *,
    activation: Activation,
    delta: float = 0.1,
    label_bound: float | None = None,
    variance: float = 1.0,
) -> Certificate:
    """Hold a run of plain gradient descent against Theorem H.1, for smooth σ.

    η is the one that `observables(activation, step_size=η)` recorded.

    Args:
      history: what `observables(activation, step_size=η)` recorded, with or without a leading axis
        of seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      data, scales, gamma, activation, delta, label_bound, variance: as for
        `certificate_gradient_flow`.

    Returns, Raises: as for `certificate_gradient_flow`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from ntkflow.systems.node_scaling.network import NodeScaledNetwork
      >>> from ntkflow.training.descent import descend
      >>> from ntkflow.training.losses import squared_loss
      >>> scales, x, y = jnp.full(64, 1 / 64), jnp.eye(2), jnp.array([0.5, -0.5])
      >>> module = NodeScaledNetwork(scales, activation=jnp.sin)
      >>> observe = observables(jnp.sin, step_size=0.02)
      >>> run = descend(squared_loss(module.apply), optax.sgd(0.02), 10, observe=observe)
      >>> trajectory = jax.jit(lambda key: run(module.init(key, x), (x, y)))(jax.random.key(0))
      >>> certificate = certificate_gradient_descent(
      ...     trajectory.history, trajectory.steps, (x, y), scales, 1.0, activation=jnp.sin
      ... )
      >>> bool(certificate.holds), bool(certificate.applies)
      (True, False)

    References:
      Caron et al. (2023), appendix H.
    """
    observe = observables(activation, step_size=0.0)
    builder = "observables(activation, step_size=η)"
    run = read(history, observe, builder, steps, data, scales, gamma, activation, variance)
    record, setting = run.record, setting_of(run, delta, label_bound)
    eta, theorem = record["step_size"][..., :1], "Theorem H.1"
    decay = bounds_descent.error_decay_descent(run.steps, setting, eta).value
    distance = bounds_descent.weight_distance_descent(setting, run.scales, eta[..., None])
    return Certificate(
        theorem=f"Caron et al. (2023), {theorem}: gradient descent, smooth activation",
        hypotheses=(
            *assumptions(run, smooth=True, label_bound=label_bound),
            *(
                run.claim(f"η ≤ {cap.formula.removeprefix('η = ')}", theorem, eta, cap.value)
                for cap in bounds_descent.step_size_conditions(setting)
            ),
            *requirements(run, setting, bounds_descent.width_conditions_descent(setting, eta)),
        ),
        claims=(
            *_initial_claims(run, setting),
            run.claim(
                "3γκ_n/8 ≤ λ_min(Θ)",
                "appendix H.1",
                bounds_descent.descent_smallest_eigenvalue(setting).value,
                record["gram_smallest_eigenvalue"],
            ),
            run.decay("‖y − u_s‖² ≤ (1 − ηγκ_n/2)^s ‖y − u_0‖²", "equation (27)", decay),
            run.claim(
                "‖w_j − w_j(0)‖ ≤ c_j/2",
                "appendix H.3",
                *tightest(record["weight_distance"], np.asarray(distance.value)),
            ),
        ),
    )


def _initial_claims(run: Run, setting: Setting) -> tuple[Inequality, ...]:
    return (
        run.claim(
            "‖y − u_0‖² ≤ 2n (C² + C_1) / δ",
            "appendices F and G",
            run.record["residual_norm"][..., :1] ** 2,
            bounds.initial_error(setting).value,
        ),
        run.claim(
            "γκ_n/2 ≤ λ_min(Θ(0))",
            "Proposition D.1",
            initial_smallest_eigenvalue(setting).value,
            run.record["gram_smallest_eigenvalue"][..., :1],
        ),
    )
