"""Runs of the node-scaled network held against the lemmas, which speak of any width."""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.node_scaling import bounds, bounds_descent, bounds_perturbation
from ntkflow.systems.node_scaling.network import Activation
from ntkflow.systems.node_scaling.observables import observables
from ntkflow.systems.node_scaling.run import Run, assumptions, read
from ntkflow.systems.records import DIVERGENCE_IS_DATA, tightest
from ntkflow.theory import Certificate, Inequality


@DIVERGENCE_IS_DATA
def certificate_lemmas(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    scales: ArrayLike,
    gamma: ArrayLike,
    *,
    activation: Activation,
    variance: float = 1.0,
) -> Certificate:
    """Hold a run against what the lemmas say of any width: E.1, E.4, H.2, H.3, (17) with (18).

    They are applied to what was measured. E.1 takes for ζ/2 the smallest λ_min(Θ) among the
    records up to each of them, and is for the flow, or for steps so small that descent follows it;
    E.4 takes twice the distance of each node for c_j. H.3 is claimed where the history has a
    step size, E.4 and H.3 where σ'' is bounded. L = sup |σ'| enters where it exceeds the 1 of the
    assumption, so that the claims stand for swish too.

    Args:
      history: what `observables(activation, gamma=γ)` recorded of a flow, or that of
        `observables(activation, gamma=γ, step_size=η)` of a descent, with or without a leading
        axis of seeds.
      steps: of the records, `trajectory.steps`: times if the history has no step size.
      data, scales, gamma, activation, variance: as for `certificate_gradient_flow`.

    Returns, Raises: as for `certificate_gradient_flow`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from ntkflow.systems.node_scaling.network import NodeScaledNetwork
      >>> from ntkflow.training.descent import descend
      >>> from ntkflow.training.losses import squared_loss
      >>> scales, x, y = jnp.array([0.7, 0.1, 0.1, 0.1]), jnp.eye(2), jnp.array([0.5, -0.5])
      >>> module = NodeScaledNetwork(scales, activation=jnp.sin)
      >>> observe = observables(jnp.sin, gamma=0.4, step_size=0.01)
      >>> run = descend(squared_loss(module.apply), optax.sgd(0.01), 10, observe=observe)
      >>> trajectory = jax.jit(lambda key: run(module.init(key, x), (x, y)))(jax.random.key(0))
      >>> certificate = certificate_lemmas(
      ...     trajectory.history, trajectory.steps, (x, y), scales, 0.4, activation=jnp.sin
      ... )
      >>> bool(certificate.holds), len(certificate.claims)
      (True, 9)

    References:
      Caron et al. (2023), appendices E and H.2.
    """
    descent = isinstance(history, Mapping) and "step_size" in history
    observe = observables(activation, gamma=gamma, step_size=0.0 if descent else None)
    builder = f"observables(activation, gamma=γ{', step_size=η' if descent else ''})"
    run = read(history, observe, builder, steps, data, scales, gamma, activation, variance)
    record, (n, d), residual = run.record, run.x.shape, run.record["residual_norm"]
    curvature, slope = run.constants.smoothness, max(1.0, run.constants.lipschitz)
    times = run.steps * record["step_size"] if descent else run.steps
    # Rounding may leave a singular kernel with an eigenvalue below 0.
    least = np.minimum.accumulate(np.maximum(record["gram_smallest_eigenvalue"], 0), axis=-1)
    start = residual[..., :1, None]
    decay = bounds.loss_decay(times, least).value
    moved = bounds.node_distance(n, d, run.scales, start, least[..., None], slope=slope)
    gradient = bounds.gradient_norm(n, d, run.scales, residual[..., None], slope=slope)
    by_gradients = bounds_perturbation.gram_change_by_gradients(
        n, d, run.scales, record["gradient_change"], slope=slope
    )
    claims = [
        run.decay("L(t) ≤ exp(−ζt) L(0)", "Lemma E.1", decay),
        run.claim(
            "‖w_j − w_j(0)‖ ≤ L √(nλ_j/d) ‖y − u_0‖ 2/ζ",
            "Lemma E.1, equation (15)",
            *tightest(record["weight_distance"], np.asarray(moved.value)),
        ),
        run.claim(
            "‖∂L/∂w_j‖ ≤ L √(nλ_j/d) ‖y − u‖",
            "Lemma H.2",
            *tightest(record["gradient_norm"], np.asarray(gradient.value)),
        ),
        run.claim(
            "‖Θ − Θ(0)‖ ≤ F + 2 L √(n F / d), up to rounding of Θ",
            "equations (17) and (18)",
            record["gram_change"],
            by_gradients.value + _rounding(run, slope),
        ),
    ]
    if run.smooth:
        claims += _perturbations(run, curvature, slope)
    if run.smooth and descent:
        factor = bounds_descent.contraction_factor(
            n,
            d,
            record["step_size"],
            np.maximum(record["gram_smallest_eigenvalue"], 0),
            residual,
            curvature,
            slope=slope,
        )
        claims.append(
            run.claim(
                "‖y − u_{s+1}‖² ≤ (1 − 2ηλ_min + 2η² M L² n^(3/2)/d² ‖y − u_s‖ + η² n² L⁴/d²) "
                "‖y − u_s‖²",
                "Lemma H.3",
                record["next_residual_norm"] ** 2,
                factor.value * residual**2,
            )
        )
    return Certificate(
        theorem="Caron et al. (2023), Lemmas E.1, E.4, H.2 and H.3",
        hypotheses=assumptions(run, smooth=run.smooth),
        claims=tuple(claims),
    )


def _perturbations(run: Run, curvature: float, slope: float) -> list[Inequality]:
    """Lemma E.4 for the kernel and both parts of it, and (23), at the distances that were run."""
    record, scales, gamma, (n, d) = run.record, run.scales, run.gamma, run.x.shape
    radii = 2 * record["weight_distance"].astype(float)
    uniform = np.full_like(scales, gamma / len(scales))
    parts = {
        "Θ": (record["gram_change"], scales),
        "Θ⁽¹⁾": (record["uniform_change"], uniform),
        "Θ⁽²⁾": (record["asymmetric_change"], np.maximum(scales - uniform, 0)),
    }
    claims, rounding = [], _rounding(run, slope)
    for name, (change, part) in parts.items():
        bound = bounds_perturbation.gram_perturbation(n, d, part, radii, curvature, slope=slope)
        statement = f"‖{name} − {name}(0)‖ ≤ nM²/4d² Σ λ_j c_j² + nML/d^(3/2) √(Σ λ_j Σ λ_j c_j²)"
        statement += ", up to rounding of Θ"
        claims.append(run.claim(statement, "Lemma E.4", change, bound.value + rounding))
    drop = bounds_perturbation.eigenvalue_drop(n, d, gamma, radii, curvature, slope=slope)
    claims.append(
        run.claim(
            "λ_min(Θ⁽¹⁾(0)) − (nM²γ/4d²m Σ c_j² + nMLγ/d^(3/2)√m √(Σ c_j²)) ≤ λ_min(Θ), "
            "up to rounding of Θ",
            "Lemma E.4, equation (23)",
            record["uniform_smallest_eigenvalue"][..., :1] - drop.value,
            record["gram_smallest_eigenvalue"] + rounding,
        )
    )
    return claims


def _rounding(run: Run, slope: float) -> float:
    """What rounding moves Θ by: a change of 0, as at the first record, is not recorded as 0."""
    n, d = run.x.shape
    return 16 * float(np.finfo(run.record["gram_change"].dtype).eps) * slope**2 * n / d
