"""Runs of any network on any loss held against Theorems 1 and 2 of Song et al. (2021).

Record in float64: a run that satisfies (9) moves its weights little, and float32 loses the steps.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.composite import bounds
from ntkflow.systems.composite.constants import LossConstants, NearIsometry
from ntkflow.systems.composite.path_length import flow_path_length
from ntkflow.systems.records import DIVERGENCE_IS_DATA, check_history, steps_of
from ntkflow.theory import Certificate, Inequality, inequality

_OBSERVED = ("loss", "distance", "gradient_norm", "output_gradient_norm", "singular_values")


@DIVERGENCE_IS_DATA
def certificate_gradient_flow(
    history: Mapping[str, ArrayLike],
    times: ArrayLike,
    near: NearIsometry,
    loss: LossConstants,
    *,
    sharpened: bool = False,
) -> Certificate:
    """Hold a gradient flow against Theorem 1 and Lemmas 1, 2 and 4.

    What the theorem assumes everywhere, it is checked at the records: near-isometry at the first,
    the PL condition, and what smoothness of Φ implies for singular values (Weyl's inequality). The
    length in Lemma 2 is `flow_path_length`, which is at least the true one.

    Args:
      history: what `observables(apply, loss)` recorded, with or without a leading axis of seeds.
      times: of the records, from 0 on; `trajectory.steps`.
      near: μ, ν and β_Φ of the network at its initial parameters, numbers or of shape (seeds,).
      loss: α and β_f.
      sharpened: hold it against the sharpened condition and length, see `bounds`.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis. A `near.smoothness` of NaN,
      not known, is a hypothesis that fails, as are the claims made of it.

    Raises:
      ValueError: a record is missing, or the first is not at 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ntkflow.systems.composite import observables, squared_loss_constants
      >>> from ntkflow.training.flow import gradient_flow
      >>> from ntkflow.training.losses import squared_loss
      >>> apply, x, y = lambda w, x: x @ w, jnp.diag(jnp.array([1.0, 2.0])), jnp.array([0.5, -0.5])
      >>> observe = observables(apply, squared_loss)
      >>> run = gradient_flow(squared_loss(apply), np.linspace(0, 3, 16), observe=observe)
      >>> trajectory = jax.jit(run)(jnp.zeros(2), (x, y))
      >>> near, loss = NearIsometry(1.0, 2.0, 0.0), squared_loss_constants("half_sum")
      >>> certificate = certificate_gradient_flow(trajectory.history, trajectory.steps, near, loss)
      >>> bool(certificate.applies), bool(certificate.holds)  # a linear network: no condition (9)
      (True, True)

    Reference: Song et al. (2021), section 3.
    """
    run = _read(history, times, near, loss, sharpened, ())
    initial = run.initial("loss")
    length = bounds.flow_length(run.near, loss, initial, sharpened=sharpened)
    decay = bounds.flow_rate(run.near, loss, run.steps)
    return Certificate(
        theorem="Song et al. (2021), Theorem 1: gradient flow of f ∘ Φ",
        hypotheses=(*_common_hypotheses(run, "flow"),),
        claims=(
            *_common_claims(run),
            run.claim(
                f"∫ ‖∇h‖ dt ≤ {length.formula}, c = {length.constant:.3g}",
                "Lemma 2",
                flow_path_length(run.steps, run.record["loss"]),
                length.value,
            ),
            run.claim(
                "h(w(t)) ≤ exp(−α μ² t / 2) h(w₀)",
                "Theorem 1, rate derived",
                run.record["loss"][..., 1:],
                (decay.value * initial)[..., 1:],
            ),
        ),
    )


@DIVERGENCE_IS_DATA
def certificate_gradient_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    near: NearIsometry,
    loss: LossConstants,
    *,
    length: ArrayLike | None = None,
    sharpened: bool = False,
) -> Certificate:
    """Hold a run of plain gradient descent against Theorem 2 and what its proof establishes.

    Args:
      history: what `step_observables(apply, loss, η)` recorded, with or without seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      near: μ, ν and β_Φ of the network at its initial parameters, numbers or of shape (seeds,).
      loss: α and β_f.
      length: that of the whole path, of shape () or (seeds,): train with
        `optax.chain(optax.sgd(η), accumulate_length())`, and hand over
        `path_length(trajectory.state.optimizer)`. None leaves that claim out.
      sharpened: hold it against the sharpened condition and length, see `bounds`.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis. A `near.smoothness` of NaN,
      not known, is a hypothesis that fails, as are the claims made of it.

    Raises:
      ValueError: a record is missing, or the first is not at 0.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from ntkflow.systems.composite import squared_loss_constants, step_observables
      >>> from ntkflow.training.descent import descend
      >>> from ntkflow.training.losses import squared_loss
      >>> apply, x, y = lambda w, x: x @ w, jnp.diag(jnp.array([1.0, 2.0])), jnp.array([0.5, -0.5])
      >>> observe = step_observables(apply, squared_loss, 0.2)
      >>> run = descend(squared_loss(apply), optax.sgd(0.2), 9, observe=observe)
      >>> trajectory = jax.jit(run)(jnp.zeros(2), (x, y))
      >>> near, loss = NearIsometry(1.0, 2.0, 0.0), squared_loss_constants("half_sum")
      >>> record = trajectory.history, trajectory.steps, near, loss
      >>> certificate = certificate_gradient_descent(*record)
      >>> bool(certificate.holds), bool(certificate.applies)  # η is above 1 / 10.5
      (True, False)

    Reference: Song et al. (2021), section 4 and appendix C.
    """
    run = _read(history, steps, near, loss, sharpened, ("step_size", "next_loss"))
    eta, h, following = run.record["step_size"], run.record["loss"], run.record["next_loss"]
    initial, start = run.initial("loss"), run.initial("output_gradient_norm")
    largest = bounds.largest_step_size(run.near, loss, start)
    decrease = bounds.step_decrease(
        run.near, loss, eta, run.record["gradient_norm"], run.record["output_gradient_norm"]
    )
    factor = bounds.descent_rate(run.near, loss, eta).value
    decay = bounds.descent_rate(run.near, loss, eta, run.steps)
    bound = bounds.descent_length(run.near, loss, initial, sharpened=sharpened)
    lengths = (
        ()
        if length is None
        else (
            run.claim(
                f"Σ ‖w_{{i+1}} − w_i‖ ≤ {bound.formula}, c = {bound.constant:.3g}",
                "equation (33)",
                np.asarray(length)[..., None],
                bound.value,
            ),
        )
    )
    return Certificate(
        theorem="Song et al. (2021), Theorem 2: gradient descent on f ∘ Φ",
        hypotheses=(
            *_common_hypotheses(run, "descent"),
            run.claim(
                "‖∇f‖² ≤ 2 β_f f (f is β_f-smooth)",
                "section 4",
                run.record["output_gradient_norm"] ** 2,
                2 * loss.smoothness * h,
            ),
            run.claim(f"η ≤ {largest.formula}", largest.source, eta, largest.value),
        ),
        claims=(
            *_common_claims(run),
            *lengths,
            run.claim(
                "‖∇f(z_i)‖ ≤ ‖∇f(z₀)‖ + ¾ β_f μ ν / β_Φ",
                "equation (34)",
                run.record["output_gradient_norm"],
                bounds.gradient_bound(run.near, loss, start).value,
            ),
            run.claim(
                f"h(w_{{i+1}}) ≤ h(w_i) − {decrease.formula}",
                "appendix C, descent inequality",
                following,
                h - decrease.value,
            ),
            run.claim("h(w_{i+1}) ≤ (1 − ¼ η α μ²) h(w_i)", "equation (36)", following, factor * h),
            run.claim(
                "h(w_i) ≤ (1 − ¼ η α μ²)ⁱ h(w₀)",
                "Theorem 2, equation (14)",
                h[..., 1:],
                (decay.value * initial)[..., 1:],
            ),
        ),
    )


class _Run(NamedTuple):
    """A run and the constants the theorems speak of; those of `near` have shape (..., 1)."""

    record: dict[str, np.ndarray]
    steps: np.ndarray
    near: NearIsometry
    loss: LossConstants
    sharpened: bool

    def initial(self, name: str) -> np.ndarray:
        return self.record[name][..., :1]

    def claim(self, statement: str, source: str, smaller: Any, larger: Any) -> Inequality:
        """An inequality in the precision of the record, which decides what rounding is."""
        place = source if source.startswith("Song") else f"Song et al. (2021), {source}"
        return inequality(statement, place, smaller, larger, self.record["loss"].dtype)


def _read(history, steps, near, loss, sharpened, more: Iterable[str]) -> _Run:
    needed = (*_OBSERVED, *more)
    builder = "step_observables(apply, loss, step_size)" if more else "observables(apply, loss)"
    check_history(history, needed, builder)
    record = {name: np.asarray(history[name]) for name in needed}
    steps = steps_of(steps, record["loss"])
    columns = NearIsometry(*(np.asarray(value, float)[..., None] for value in near))
    return _Run(record, steps, columns, loss, sharpened)


def _common_hypotheses(run: _Run, dynamics: Any) -> tuple[Inequality, ...]:
    near, loss, values = run.near, run.loss, run.record["singular_values"]
    largest = bounds.largest_initial_loss(near, loss, dynamics, sharpened=run.sharpened)
    change = np.abs(values - values[..., :1, :]).max(axis=-1)
    formula = largest.formula.replace("c", f"{largest.constant:.3g}", 1)
    return (
        run.claim("0 < μ_Φ (Definition 1)", "equation (3)", np.finfo(values.dtype).tiny, near.mu),
        run.claim("μ_Φ ≤ σ_min(∇Φ*(w₀))", "equation (3)", near.mu, values[..., :1, 0]),
        run.claim("σ_max(∇Φ*(w₀)) ≤ ν_Φ", "equation (3)", values[..., :1, 1], near.nu),
        run.claim(
            "|σ(∇Φ*(w)) − σ(∇Φ*(w₀))| ≤ β_Φ ‖w − w₀‖ (Φ is β_Φ-smooth)",
            "equation (4)",
            change,
            near.smoothness * run.record["distance"],
        ),
        run.claim(
            "2 α_f f ≤ ‖∇f‖² (PL)",
            "equation (7)",
            2 * loss.pl * run.record["loss"],
            run.record["output_gradient_norm"] ** 2,
        ),
        run.claim(f"h(w₀) ≤ {formula}", largest.source, run.initial("loss"), largest.value),
    )


def _common_claims(run: _Run) -> tuple[Inequality, ...]:
    values, near = run.record["singular_values"], run.near
    smallest, largest = bounds.singular_values_in_ball(near)
    return (
        run.claim(
            "‖w − w₀‖ ≤ ρ_Φ = μ / (2 β_Φ)",
            "equations (10) and (11)",
            run.record["distance"],
            bounds.ball_radius(near).value,
        ),
        run.claim("μ/2 ≤ σ_min(∇Φ*(w))", "Lemma 1", smallest.value, values[..., 0]),
        run.claim("σ_max(∇Φ*(w)) ≤ 3ν/2", "Lemma 1", values[..., 1], largest.value),
    )
