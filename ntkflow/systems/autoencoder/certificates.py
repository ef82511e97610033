"""Runs of the autoencoder, loss ½ Σ_i ‖x_i − u_i‖², held against Theorems 4.1, 4.2, 5.1 and 5.2.

The claims are what the proofs establish in turn, corrected. Record in float64, and stop before the
error is rounding, at some 10⁻²⁸ of its start: there no inequality between two steps holds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.autoencoder import bounds, claims, concentration, requirements
from ntkflow.systems.autoencoder.arguments import source
from ntkflow.systems.autoencoder.requirements import Regime
from ntkflow.systems.autoencoder.run import Run, read
from ntkflow.systems.records import DIVERGENCE_IS_DATA
from ntkflow.theory import Certificate, Inequality, inequality


@DIVERGENCE_IS_DATA
def certificate_gradient_flow(
    history: Mapping[str, ArrayLike],
    times: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    width: int,
    trains: Regime,
    *,
    delta: float = 0.1,
) -> Certificate:
    """Hold a gradient flow against Theorem 4.1 (encoder) or 5.1 (both layers), and their lemmas.

    Where a lemma speaks of a radius R, the one that the run had stands for it: the largest
    ‖w_r − w_r(0)‖ at the record, or ‖W − W(0)‖_F and ‖A − A(0)‖_F. The hypotheses hold R', which
    comes from the rate, against the R of the proof.

    For both layers λ_H = λ_min(H^∞) stands where the proof rests on H alone: the paper takes it to
    be λ_0 = λ_min(G^∞), and it is smaller. The rate is claimed with both: exp(−λ_H t/d) is what the
    proof gives, exp(−λ_0 t/d) what Theorem 5.1 says, and what wide networks do, as
    λ_min(K^∞) ≥ λ_0 + λ_H.

    Args:
      history: what `observables()` recorded, with or without a leading axis of seeds.
      times: of the records, from 0 on; `trajectory.steps`.
      data: (x, x) of the run, x of shape (n, d); the encoder saw x itself, without a constant.
      width: m.
      trains: "encoder" or "both".
      delta: total probability of failure, shared evenly by the proof's events: three, and with
        those of Lemma A.4 four for descent on the encoder.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: a record is missing, the first is not at 0, samples are parallel (λ_0 = 0), `data`
        is not (x, x), `trains` is "decoder", or "encoder" where the decoder moved.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ntkflow.systems.autoencoder import Autoencoder, observables
      >>> from ntkflow.training.flow import gradient_flow
      >>> from ntkflow.training.losses import squared_loss
      >>> m, x = 2**18, jnp.ones((1, 1))  # the smallest case: the theorem asks for m = 227 556
      >>> module = Autoencoder(m, trains="encoder")
      >>> loss, observe = squared_loss(module.apply), observables()
      >>> run = gradient_flow(loss, [0.0, 1.0], observe=observe, rtol=1e-2, atol=1e-4)
      >>> trajectory = jax.jit(run)(module.init(jax.random.key(0), x), (x, x))
      >>> certificate = certificate_gradient_flow(
      ...     trajectory.history, trajectory.steps, (x, x), m, "encoder", delta=0.9
      ... )
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    References:
      Nguyen, Wong and Hegde (2019a), sections 4.1 and 5.1.
    """
    run = read(history, times, data, width, trains, delta, "flow")
    theorem = "Theorem 4.1" if trains == "encoder" else "Theorem 5.1"
    return Certificate(
        theorem=f"{source(theorem)}: gradient flow of an autoencoder",
        hypotheses=_hypotheses(run),
        claims=(
            *_claims(run),
            *(
                run.claim(
                    f"‖X − U(t)‖² ≤ exp(−{name} t/d) ‖X − U(0)‖²",
                    origin,
                    *_decay(run, bounds.error_decay_flow(run.steps, run.d, value).value),
                )
                for name, value, origin in _rates(run, theorem)
            ),
        ),
    )


@DIVERGENCE_IS_DATA
def certificate_gradient_descent(
    history: Mapping[str, ArrayLike],
    steps: ArrayLike,
    data: tuple[ArrayLike, ArrayLike],
    width: int,
    trains: Regime,
    *,
    delta: float = 0.1,
) -> Certificate:
    """Hold plain gradient descent against Theorem 4.2 (encoder) or 5.2 (both layers).

    As `certificate_gradient_flow`, and with the terms C_i of every recorded step: for the encoder
    with the radius R that the run had, for both layers with its norms ‖A‖, ‖W‖ and ‖φ(XᵀW)‖.
    (5.20) is left out: no step size meets it (`joint_contraction_factor`), so that (5.15) is
    claimed and not proven.

    Args:
      history: what `step_observables(η)` recorded, with or without a leading axis of seeds.
      steps: of the records, from 0 on; `trajectory.steps`.
      data, width, trains, delta: as for `certificate_gradient_flow`.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: as for `certificate_gradient_flow`.

    Example:
      >>> import jax, optax, jax.numpy as jnp
      >>> from ntkflow.systems.autoencoder import Autoencoder, step_observables
      >>> from ntkflow.training.descent import descend
      >>> from ntkflow.training.losses import squared_loss
      >>> m, x = 2**18, jnp.ones((1, 1))  # Theorem 5.2 asks for m = 234 667, and for this η
      >>> module, eta = Autoencoder(m, trains="both"), 1 / 128
      >>> observe = step_observables(eta)
      >>> run = descend(squared_loss(module.apply), optax.sgd(eta), 4, observe=observe, every=2)
      >>> trajectory = jax.jit(run)(module.init(jax.random.key(0), x), (x, x))
      >>> certificate = certificate_gradient_descent(
      ...     trajectory.history, trajectory.steps, (x, x), m, "both", delta=0.9
      ... )
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    References:
      Nguyen, Wong and Hegde (2019a), sections 4.2 and 5.2, appendices B.2 and C.2.
    """
    run = read(history, steps, data, width, trains, delta, "descent")
    eta = run.record["step_size"]
    theorem = "Theorem 4.2" if trains == "encoder" else "Theorem 5.2"
    largest = requirements.largest_step_size(trains, run.n, run.d, run.proof, run.lambda_n)
    formula = "η ≤ λ_0 / (4ndλ_n)" if trains == "encoder" else "η ≤ λ_H / (64nλ_n)"
    return Certificate(
        theorem=f"{source(theorem)}: gradient descent on an autoencoder",
        hypotheses=(*_hypotheses(run), run.claim(formula, largest.source, eta, largest.value)),
        claims=(
            *_claims(run),
            *(claims.encoder_step(run) if trains == "encoder" else claims.joint_step(run)),
            *(
                run.claim(
                    f"‖X − U(k)‖² ≤ (1 − η{name}/(2d))ᵏ ‖X − U(0)‖²",
                    origin,
                    *_decay(run, bounds.error_decay_descent(run.steps, run.d, value, eta).value),
                )
                for name, value, origin in _rates(run, theorem)
            ),
        ),
    )


def _hypotheses(run: Run) -> tuple[Inequality, ...]:
    sizes, m = (run.n, run.d, run.proof, run.lambda_n), float(run.m)
    width = requirements.sufficient_width(
        run.trains, *sizes, run.delta, run.dynamics, gram_norm=run.gram_norm
    )
    if run.trains == "encoder":
        initial = concentration.encoder_gram_width(*sizes, run.share)
        radius = requirements.stable_radius(run.n, run.d, run.lambda_0, run.share, run.dynamics)
        confined = run.claim(
            "R' ≤ R", source("Lemma 4.4"), claims.neuron_distance(run).value, radius.value
        )
    else:
        initial = concentration.decoder_gram_width(*sizes, run.share, gram_norm=run.gram_norm)
        features = run.record["hidden_norm"][..., :1]
        radius = requirements.joint_stable_radius(run.m, run.lambda_h, run.lambda_n, features)
        moved, _ = claims.joint_distances(run)
        confined = run.claim("R'_w ≤ R_w", source("Lemma 5.6"), moved.value, radius.value)
    deviation = np.abs(np.linalg.norm(run.x, axis=1) - 1).max()
    least = min(run.lambda_0, run.lambda_h)
    return (
        inequality("‖x_i‖ = 1, to 10⁻⁶", source("Assumption 1"), deviation, 1e-6),
        inequality("0 < λ_0 and λ_H", source("Assumption 2", "λ_H"), run.resolution, least),
        inequality(f"{width.formula.removeprefix('m = ')} ≤ m", width.source, width.value, m),
        inequality(f"{initial.formula.removeprefix('m = ')} ≤ m", initial.source, initial.value, m),
        confined,
    )


def _claims(run: Run) -> tuple[Inequality, ...]:
    own = claims.encoder_claims if run.trains == "encoder" else claims.joint_claims
    return (claims.initial_claim(run), *own(run))


def _rates(run: Run, theorem: str) -> list[tuple[str, float, str]]:
    """The rates claimed: names and values of λ, and where they come from."""
    stated = ("λ_0", run.lambda_0, source(theorem))
    if run.trains == "encoder":
        return [stated]
    return [("λ_H", run.lambda_h, source(f"proof of {theorem}", "λ_H for λ_0")), stated]


def _decay(run: Run, bound: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both sides from the second record on: at 0 they are equal, and the margin says nothing."""
    squared = run.record["squared_error"]
    return squared[..., 1:], (bound * squared[..., :1])[..., 1:]
