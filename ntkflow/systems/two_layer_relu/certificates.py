"""Runs of the two-layer ReLU network, loss ½ Σ_i (f(x_i) − y_i)², held against Theorems 2.2, 2.3.

The claims are what the proofs establish in turn. Record in float64: in float32, at a width of 10⁶
and the theorem's step size, the updates of the weights are lost to rounding.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.spectrum import extreme_eigenvalues
from ntkflow.systems.records import DIVERGENCE_IS_DATA, check_history, steps_of, tightest
from ntkflow.systems.two_layer_relu import bounds, requirements
from ntkflow.systems.two_layer_relu.arguments import Dynamics
from ntkflow.systems.two_layer_relu.network import limit_gram
from ntkflow.systems.two_layer_relu.observables import observables, step_observables
from ntkflow.theory import Certificate, Inequality, inequality


@DIVERGENCE_IS_DATA
def certificate_gradient_flow(
    history: Mapping[str, ArrayLike],
    times: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    width: int,
    *,
    delta: float = 0.1,
) -> Certificate:
    """Hold a gradient flow against Theorem 2.2 and Lemmas 2.1 to 2.4.

    Args:
      history: what `observables()` recorded, with or without a leading axis of seeds.
      times: of the records, from 0 on; `trajectory.steps`.
      data: (x, y) of the run, shapes (n, d) and (n,).
      width: m.
      delta: total probability of failure; a third for each of the proof's three events.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0, inputs are parallel (λ_0 = 0).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ntkflow.systems.two_layer_relu import TwoLayerReLU
      >>> from ntkflow.training.flow import gradient_flow
      >>> from ntkflow.training.losses import squared_loss
      >>> module, x, y = TwoLayerReLU(256), jnp.eye(2), jnp.array([0.5, -0.5])
      >>> run = gradient_flow(squared_loss(module.apply), [0.0, 1.0, 2.0], observe=observables())
      >>> trajectory = jax.jit(run)(module.init(jax.random.key(0), x), (x, y))
      >>> certificate = certificate_gradient_flow(trajectory.history, trajectory.steps, (x, y), 256)
      >>> bool(certificate.holds), bool(certificate.applies)  # Ω(n⁶) is far above 256
      (True, False)

    References:
      Du (2019), section 2.2.
    """
    run = _read(history, times, data, width, delta, "flow")
    radius = requirements.stable_radius(run.n, run.lambda_0, run.share, "flow")
    decay = bounds.error_decay_flow(run.steps, run.lambda_0)
    return Certificate(
        theorem="Du (2019), Theorem 2.2: gradient flow of a two-layer ReLU network",
        hypotheses=(*_common_hypotheses(run), _confinement(run, radius.value)),
        claims=(*_common_claims(run), _decay(run, decay.value, "exp(−λ_0 t)", "Theorem 2.2")),
    )


@DIVERGENCE_IS_DATA
def certificate_gradient_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    width: int,
    *,
    delta: float = 0.1,
) -> Certificate:
    """Hold a run of plain gradient descent against Theorem 2.3 and what its proof establishes.

    η and R are those that `step_observables(η, R)` recorded; the proof's radius is
    `stable_radius(n, λ_0, delta / 3, "descent").value`.

    Args:
      history: what `step_observables(...)` recorded, with or without a leading axis of seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      data: (x, y) of the run, shapes (n, d) and (n,).
      width: m.
      delta: total probability of failure; a third for each of the proof's three events.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0, inputs are parallel (λ_0 = 0).

    Example:
      >>> import jax, optax, jax.numpy as jnp
      >>> from ntkflow.systems.two_layer_relu import TwoLayerReLU, step_observables
      >>> from ntkflow.training.descent import descend
      >>> from ntkflow.training.losses import squared_loss
      >>> module, x, y = TwoLayerReLU(256), jnp.eye(2), jnp.array([0.5, -0.5])
      >>> observe = step_observables(step_size=0.03, radius=1e-3)
      >>> run = descend(squared_loss(module.apply), optax.sgd(0.03), 20, observe=observe)
      >>> trajectory = jax.jit(run)(module.init(jax.random.key(0), x), (x, y))
      >>> certificate = certificate_gradient_descent(
      ...     trajectory.history, trajectory.steps, (x, y), 256
      ... )
      >>> failing = [claim.statement for claim in certificate.claims if not claim.holds]
      >>> failing  # weights move further than R at this width, all other claims hold
      ['patterns of S_i do not change in the step']

    References:
      Du (2019), section 2.3.
    """
    run = _read(history, steps, data, width, delta, "descent")
    record, n, m, lambda_0 = run.record, run.n, run.m, run.lambda_0
    eta, radius = record["step_size"], record["radius"]
    norm, squared = np.sqrt(record["squared_error"]), record["squared_error"]
    unstable = record["unstable_neurons"]
    total = unstable.sum(axis=-1)

    proof_radius = requirements.stable_radius(n, lambda_0, run.share, "descent").value
    largest_step = requirements.largest_step_size(n, lambda_0, constant=0.25).value
    decay = bounds.error_decay_descent(run.steps, lambda_0, eta)
    share = tightest(
        np.abs(record["unstable_change"]),
        np.asarray(bounds.unstable_change(n, m, eta[..., None], unstable, norm[..., None]).value),
    )
    factor = bounds.contraction_factor(n, lambda_0, run.share, eta, radius).value
    limit = bounds.unstable_neurons(n, m, radius, run.share).value
    section = "section 2.3.1"
    return Certificate(
        theorem="Du (2019), Theorem 2.3: gradient descent on a two-layer ReLU network",
        hypotheses=(
            *_common_hypotheses(run),
            run.claim("η ≤ λ_0 / 4n²", "Theorem 2.3 (¼ from the proof)", eta, largest_step),
            run.claim("R ≤ c δ λ_0 / n²", section, radius, proof_radius),
            _confinement(run, radius),
        ),
        claims=(
            *_common_claims(run),
            run.claim("Σ_i |S_i^⊥| ≤ C m n R / δ", "Lemma 2.5", total, limit),
            run.claim(
                "patterns of S_i do not change in the step",
                section,
                record["stable_pattern_changes"],
                0.0,
            ),
            run.claim(
                "‖H^⊥(k)‖ ≤ n Σ_i |S_i^⊥| / m",
                section,
                record["unstable_gram_norm"],
                bounds.unstable_gram_norm(n, m, total).value,
            ),
            run.claim("|I_2^i| ≤ η |S_i^⊥| √n ‖u(k) − y‖ / m", section, *share),
            run.claim(
                "‖u(k+1) − u(k)‖² ≤ η² n² ‖y − u(k)‖²",
                section,
                record["squared_change"],
                bounds.squared_change(n, eta, norm).value,
            ),
            run.claim(
                "‖y − u(k+1)‖² ≤ (1 − ηλ_0 + 2C η (n² + n^1.5) R / δ + η² n²) ‖y − u(k)‖²",
                section,
                record["next_squared_error"],
                factor * squared,
            ),
            run.claim(
                "‖y − u(k+1)‖² ≤ (1 − ηλ_0/2) ‖y − u(k)‖²",
                section,
                record["next_squared_error"],
                (1 - eta * lambda_0 / 2) * squared,
            ),
            _decay(run, decay.value, "(1 − ηλ_0/2)ᵏ", "Theorem 2.3, Condition 2.1"),
        ),
    )


class _Run(NamedTuple):
    """A run and the numbers that the theorems speak of; `share` is δ/3."""

    record: dict[str, np.ndarray]
    steps: np.ndarray
    x: np.ndarray
    y: np.ndarray
    n: int
    m: int
    lambda_0: float
    resolution: float
    share: float
    dynamics: Dynamics

    def claim(self, statement: str, source: str, smaller: Any, larger: Any) -> Inequality:
        """An inequality in the precision of the record, which decides what rounding is."""
        dtype = self.record["squared_error"].dtype
        return inequality(statement, f"Du (2019), {source}", smaller, larger, dtype)

    @property
    def distance(self) -> np.ndarray:
        """R', of each seed: shape (..., 1)."""
        norm = np.sqrt(self.record["squared_error"][..., :1])
        bound = bounds.largest_distance(self.n, self.m, self.lambda_0, norm, self.dynamics)
        return np.asarray(bound.value)


def _read(history, steps, data, width, delta, dynamics) -> _Run:
    x, y = data
    x = checks.matrix("x", x)
    n = checks.same_length(x=x, y=y)
    m = checks.positive_int("width", width)
    record = _arrays(history, dynamics)
    steps = steps_of(steps, record["squared_error"])
    extremes = extreme_eigenvalues(limit_gram(x))
    lambda_0 = float(extremes.smallest)
    x, y = np.asarray(x), np.asarray(y, float)
    if lambda_0 <= 0:
        raise ValueError(f"λ_0 is 0, up to rounding: {_most_parallel(x)}. Remove one of them.")
    return _Run(
        record, steps, x, y, n, m, lambda_0, float(extremes.resolution), delta / 3, dynamics
    )


def _arrays(history: Mapping[str, ArrayLike], dynamics: Dynamics) -> dict[str, np.ndarray]:
    flow = dynamics == "flow"
    needed: Iterable[str] = observables() if flow else step_observables(0.0, 0.0)
    builder = "observables()" if flow else "step_observables(step_size, radius)"
    check_history(history, needed, builder)
    return {name: np.asarray(history[name]) for name in needed}


def _most_parallel(x: np.ndarray) -> str:
    norms = np.linalg.norm(x, axis=1)
    if not norms.all():
        return f"row {int(norms.argmin())} of x is zero"
    unit = x / norms[:, None]
    cosine = np.abs(unit @ unit.T) - 2 * np.eye(len(x))
    i, j = np.unravel_index(cosine.argmax(), cosine.shape)
    return f"rows {i} and {j} of x are the most parallel, with a cosine of ±{cosine[i, j]:.9f}"


def _common_hypotheses(run: _Run) -> tuple[Inequality, ...]:
    constant = requirements.sufficient_constant(np.abs(run.y).max(), run.dynamics).value
    width = requirements.required_width(run.n, run.lambda_0, 3 * run.share, constant=constant)
    initial = requirements.initial_gram_width(run.n, run.lambda_0, run.share)
    deviation = np.abs(np.linalg.norm(run.x, axis=1) - 1).max()
    m = float(run.m)
    return (
        inequality("‖x_i‖ = 1, to 10⁻⁶", "Du (2019), Theorems 2.2 and 2.3", deviation, 1e-6),
        inequality(
            "0 < λ_0, up to rounding", "Du (2019), Assumption 2.1", run.resolution, run.lambda_0
        ),
        inequality(f"{width.formula.removeprefix('m = ')} ≤ m", width.source, width.value, m),
        inequality(f"{initial.formula.removeprefix('m = ')} ≤ m", initial.source, initial.value, m),
    )


def _confinement(run: _Run, radius: ArrayLike) -> Inequality:
    place = "Lemma 2.4" if run.dynamics == "flow" else "section 2.3.1"
    return run.claim("R' < R", place, run.distance, radius)


def _common_claims(run: _Run) -> tuple[Inequality, ...]:
    record, n, m, lambda_0 = run.record, run.n, run.m, run.lambda_0
    squared = record["squared_error"]
    entry = bounds.initial_gram_entry_deviation(n, m, run.share)
    initial = bounds.expected_initial_error(run.x, run.y).value / run.share
    gradient = bounds.gradient_norm(n, m, np.sqrt(squared))
    moved = "Lemma 2.3 (factor 2)" if run.dynamics == "flow" else "Corollary 2.1"
    least = record["gram_smallest_eigenvalue"]
    return (
        run.claim(
            "|H_ij(0) − H^∞_ij| ≤ √(log(2n²/δ) / 2m)",
            "proof of Lemma 2.1",
            record["gram_entry_error"][..., :1],
            entry.value,
        ),
        run.claim("‖H(0) − H^∞‖ ≤ λ_0/4", "Lemma 2.1", record["gram_error"][..., :1], lambda_0 / 4),
        run.claim("¾ λ_0 ≤ λ_min(H(0))", "Lemma 2.1", 0.75 * lambda_0, least[..., :1]),
        run.claim("‖H − H(0)‖ ≤ λ_0/4", "Lemma 2.2", record["gram_change"], lambda_0 / 4),
        run.claim("λ_0/2 ≤ λ_min(H)", "Lemma 2.2", lambda_0 / 2, least),
        run.claim(
            "‖y − u(0)‖² ≤ Σ (y_i² + ½) / δ", "end of section 2.2.1", squared[..., :1], initial
        ),
        run.claim(
            "‖∂L/∂w_r‖ ≤ √n ‖y − u‖ / √m",
            "proof of Lemma 2.3",
            record["largest_gradient_norm"],
            gradient.value,
        ),
        run.claim("‖w_r − w_r(0)‖ ≤ R'", moved, record["largest_weight_distance"], run.distance),
    )


def _decay(run: _Run, bound: Any, name: str, source: str) -> Inequality:
    """The rate, from the second record on: at 0 it is an equality, and its margin says nothing."""
    squared = run.record["squared_error"]
    return run.claim(
        f"‖u − y‖² ≤ {name} ‖u(0) − y‖²",
        source,
        squared[..., 1:],
        (bound * squared[..., :1])[..., 1:],
    )
