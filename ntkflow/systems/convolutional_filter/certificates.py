"""Runs of one filter held against Theorems 6.1 to 6.4 of Du (2019).

A step that a theorem forbids is refused, naming the largest allowed one.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.convolutional_filter import bounds, bounds_stochastic
from ntkflow.systems.convolutional_filter.bounds_stochastic import StochasticSetting
from ntkflow.systems.convolutional_filter.curves import Curve, over_angles
from ntkflow.systems.convolutional_filter.observables import observables
from ntkflow.systems.records import DIVERGENCE_IS_DATA, check_history, steps_of
from ntkflow.theory import Certificate, Inequality, inequality

_STEPPING = "observables(w_star, loss=loss, step_size=η), or rule= for an adaptive step"


@DIVERGENCE_IS_DATA
def certificate_recovery(
    history: Mapping[str, ArrayLike], steps: ArrayLike, *, epsilon: float = 1e-2
) -> Certificate:
    """Hold a run of gradient descent on one neuron against Theorem 6.1 and Lemma 6.1.

    The theorem asks for a start with ℓ(w_0) < ℓ(0) and for a distribution whose second moment on
    every two half-spaces is positive definite (not checked here: `estimate_gamma`), and says that
    where gradient descent converges, it does to w*. Its proof needs steps that decrease the loss.

    Args:
      history: what `observables(w_star, loss=..., step_size=...)` recorded, with or without
        leading axes of seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      epsilon: how close to w*, relative to ‖w*‖, the run must come to count as recovery.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0.

    Example:
      >>> import jax, optax
      >>> from ntkflow.systems.convolutional_filter.population import gaussian_loss
      >>> from ntkflow.training.descent import descend
      >>> w_star = jnp.array([1.0, 0.0])
      >>> observe = observables(w_star, loss=gaussian_loss, step_size=0.5)
      >>> run = jax.jit(descend(gaussian_loss, optax.sgd(0.5), 40, observe=observe))
      >>> trajectory = run(jnp.array([0.0, 0.4]), w_star)
      >>> certificate = certificate_recovery(trajectory.history, trajectory.steps)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    Reference: Du (2019), Theorem 6.1 and Lemma 6.1.
    """
    record, dtype, eps = _read(history, steps, _needed(), _STEPPING)
    loss, first = record["loss"], (..., slice(0, 1))
    scale = record["gradient_norm"] * record["distance"]

    def row(statement: str, place: str, smaller: Any, larger: Any) -> Inequality:
        return inequality(statement, f"Du (2019), {place}", smaller, larger, dtype)

    return Certificate(
        theorem="Du (2019), Theorem 6.1: one neuron is recovered where descent converges",
        hypotheses=(
            row(
                "ℓ(w_0) < ℓ(0)",
                "Theorem 6.1",
                loss[first],
                record["zero_loss"][first] * (1 - 100 * eps),
            ),
            row(
                "ℓ(w_{t+1}) ≤ ℓ(w_t)",
                "proof of Theorem 6.1",
                record["next_loss"],
                loss + 100 * eps * record["zero_loss"],
            ),
        ),
        claims=(
            row(
                "0 ≤ ⟨∇ℓ(w_t), w_t − w*⟩",
                "Lemma 6.1",
                -100 * eps * (scale + record["target_norm"] ** 2),
                record["descent"],
            ),
            row(
                "‖w_T − w*‖ ≤ ε ‖w*‖",
                "Theorem 6.1",
                record["distance"][..., -1:],
                epsilon * record["target_norm"][..., -1:],
            ),
        ),
    )


@DIVERGENCE_IS_DATA
def certificate_gradient_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    gamma: Curve,
    smoothness: Curve,
    beta: ArrayLike,
    cross: ArrayLike = 0.0,
    *,
    phis: ArrayLike | None = None,
) -> Certificate:
    """Hold a run of gradient descent against Theorem 6.2, or 6.3 where L_cross > 0.

    Each record stands for the one step that follows it: record as often as you like.

    Args:
      history: what `observables(w_star, loss=..., step_size=...)` recorded, with or without
        leading axes of seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      gamma, smoothness: γ and L, functions of φ, or tables at `phis`.
      beta, cross: β and L_cross.
      phis: angles of the tables, increasing from 0, at least up to φ_0.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis. Once a run is within
      rounding of w*, its records are rounding: claims allow for some of it.

    Raises:
      ValueError: a step that is larger than the theorem allows at its φ_t (the largest is named);
        γ(φ_t) ≤ 6 L_cross; a table that ends below a φ_t; a record is missing, the first is not
        at 0.

    Example:
      >>> from ntkflow.systems.convolutional_filter.gaussian import gaussian_gamma
      >>> from ntkflow.systems.convolutional_filter.gaussian import gaussian_smoothness
      >>> steps = np.arange(51)
      >>> r = 0.5 * 0.98**steps  # ‖w − w*‖ of a start at w*/2, where ∇ℓ(w) = (w − w*)/2
      >>> history = {  # by hand; `certificate_recovery` shows how a run is observed
      ...     "distance": r, "largest_angle": np.arcsin(r), "angle": 0 * r, "loss": r**2 / 4,
      ...     "zero_loss": 0.25 + 0 * r, "gradient_norm": r / 2, "descent": r**2 / 2,
      ...     "step_size": 0.04 + 0 * r, "next_distance": 0.98 * r,
      ...     "target_norm": 1 + 0 * r, "next_loss": (0.98 * r) ** 2 / 4}
      >>> rates = (gaussian_gamma, gaussian_smoothness, 1 / np.pi)
      >>> certificate = certificate_gradient_descent(history, steps, *rates)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    Reference: Du (2019), Theorems 6.2 and 6.3, and their proofs.
    """
    record, dtype, eps = _read(history, steps, _needed(), _STEPPING)
    distance, norm, eta = record["distance"], record["target_norm"], record["step_size"]
    phi = record["largest_angle"]
    inside = np.isfinite(phi)
    angles = np.where(inside, phi, 0.0)
    lowest, highest = (
        np.asarray(over_angles(curve, angles, phis)) for curve in (gamma, smoothness)
    )
    beta, cross = (np.max(np.asarray(value, float)) for value in (beta, cross))
    theorem = "6.3" if np.any(np.greater(cross, 0)) else "6.2"
    largest = bounds.largest_step_size(lowest, highest, beta, cross).value
    bounds.check_step_size(np.where(inside, eta, 0.0), largest, theorem)
    kappa = bounds.curvature(lowest, cross).value
    factor = bounds.gradient_factor(highest, beta, cross).value
    rounding = 100 * eps * norm

    def row(statement: str, place: str, smaller: Any, larger: Any, slack: Any = 0.0) -> Inequality:
        return inequality(statement, f"Du (2019), {place}", smaller, larger + slack, dtype)

    proof = f"proof of Theorem {theorem}"
    return Certificate(
        theorem=f"Du (2019), Theorem {theorem}: linear convergence of gradient descent",
        hypotheses=(
            row(
                "‖w_0 − w*‖ < ‖w*‖",
                f"Theorem {theorem}",
                distance[..., :1],
                norm[..., :1] * (1 - 100 * eps),
            ),
            row(
                "η_t ≤ min_φ (γ(φ) − 6 L_cross)/(2 (L(φ) + 10 L_cross + 4β)²)",
                f"Theorem {theorem}",
                eta,
                np.where(inside, largest, np.nan) * (1 + 1e-5),
            ),
        ),
        claims=(
            row(
                "∠(w_t, w*) ≤ φ_t",
                proof,
                record["angle"],
                phi,
                # of an arcsine near 1 as well: its slope is 1/cos φ
                100 * eps / np.sqrt(np.maximum(1 - (distance / norm) ** 2, eps)),
            ),
            row(
                "(γ(φ_t) − 6 L_cross) ‖w_t − w*‖² ≤ ⟨∇ℓ(w_t), w_t − w*⟩",
                proof,
                kappa * distance**2,
                record["descent"],
                rounding * (distance + rounding),
            ),
            row(
                "‖∇ℓ(w_t)‖ ≤ (L + 10 L_cross + 4β) ‖w_t − w*‖",
                proof,
                record["gradient_norm"],
                factor * distance,
                rounding,
            ),
            row(
                "‖w_{t+1} − w*‖² ≤ (1 − η_t (γ(φ_t) − 6 L_cross)/2) ‖w_t − w*‖²",
                f"Theorem {theorem}",
                record["next_distance"] ** 2,
                (1 - eta * kappa / 2) * distance**2,
                rounding * (distance + rounding),
            ),
        ),
    )


@DIVERGENCE_IS_DATA
def certificate_stochastic_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    setting: StochasticSetting,
    epsilon: float,
    step_size: float,
) -> Certificate:
    """Hold runs of stochastic gradient descent over seeds against Theorem 6.4, corrected.

    Args:
      history: what `observables(w_star)` recorded, each of shape (seeds, records). Between records
        a run is not seen: record often enough for "stays within r_1" to mean something.
      steps: of the records, from 0 on; `trajectory.steps`, of one seed or of all.
      setting: of the runs, with the δ that is claimed and the largest r_0.
      epsilon: ε.
      step_size: η of the runs.

    Returns:
      The certificate. Its claims are about shares of seeds, and hold once for all of them. A share
      of few seeds is noisy: δ is far above the true probability as a rule.

    Raises:
      ValueError: η is larger than `stochastic_step_size` (the largest is named), no axis of seeds,
        a record is missing, the first is not at 0.

    Example:
      >>> setting = StochasticSetting(0.5, 0.5, 0.0, 0.0, 1.0, 1.0, 0.2, 0.9, delta=0.2)
      >>> history = {"distance": np.array([[0.2, 0.1, 0.02], [0.2, 0.15, 0.01]])}
      >>> history |= {"target_norm": np.ones((2, 3))}
      >>> certificate = certificate_stochastic_descent(
      ...     history, np.array([0, 6000, 12_000]), setting, epsilon=0.1, step_size=5e-4
      ... )
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    Reference: Du (2019), Theorem 6.4.
    """
    record, dtype, eps = _read(history, steps, ("distance", "target_norm"), "observables(w_star)")
    distance, norm = record["distance"], record["target_norm"]
    if distance.ndim != 2:
        raise ValueError(
            f"The records have shape {distance.shape}; expected (seeds, records): the theorem is "
            "about the probability of success."
        )
    largest = bounds_stochastic.stochastic_step_size(setting, epsilon).value
    bounds.check_step_size(step_size, largest, "6.4")
    last = np.max(np.asarray(steps))
    delta = setting.delta

    def share(failed: np.ndarray) -> float:
        return float(np.mean(failed))

    def row(statement: str, smaller: Any, larger: Any) -> Inequality:
        return inequality(statement, "Du (2019), Theorem 6.4 (corrected)", smaller, larger)

    # ~(≤), since NaN of a run that diverged is a failure
    left = ~np.all(distance <= setting.radius, axis=1)
    far = ~(distance[:, -1] <= epsilon * norm[:, -1])
    bound = bounds_stochastic.failure_probability(setting, step_size, last, epsilon)
    return Certificate(
        theorem="Du (2019), Theorem 6.4: stochastic gradient descent reaches ε ‖w*‖",
        hypotheses=(
            inequality(
                "‖w_0 − w*‖ ≤ r_0",
                "Du (2019), Theorem 6.4",
                np.max(distance[:, 0]),
                setting.initial_distance * (1 + 100 * eps),
                dtype,
            ),
            *bounds_stochastic.stochastic_conditions(setting, step_size, last, epsilon),
        ),
        claims=(
            row("share of runs that leave r_1 ≤ δ", share(left), delta),
            row("share of runs with ‖w_T − w*‖ > ε ‖w*‖ ≤ δ", share(far), delta),
            row("share of either ≤ failure_probability", share(left | far), bound.value),
        ),
    )


def _needed() -> tuple[str, ...]:
    every = observables(np.ones(1), loss=lambda w, data: jnp.sum(w), step_size=1.0)
    return (*every, "loss")


def _read(
    history: Mapping[str, ArrayLike], steps: ArrayLike, needed: tuple[str, ...], observe: str
) -> tuple[dict[str, np.ndarray], Any, float]:
    """The records, the dtype that they were recorded in, and its rounding."""
    check_history(history, needed, observe)
    dtype = jnp.promote_types(jnp.result_type(history["distance"]), jnp.float32)
    record = {name: np.asarray(history[name], float) for name in needed}
    steps_of(steps, record["distance"])
    return record, dtype, float(jnp.finfo(dtype).eps)
