"""What the proofs of sections 4 and 5 establish in turn, claimed of a recorded run."""

from typing import Any

import numpy as np

from ntkflow.systems.autoencoder import bounds, bounds_joint, bounds_joint_step, bounds_weak
from ntkflow.systems.autoencoder.arguments import source
from ntkflow.systems.autoencoder.constants import WeightNorms
from ntkflow.systems.autoencoder.run import Run
from ntkflow.systems.records import tightest
from ntkflow.theory import Bound, Inequality


def initial_claim(run: Run) -> Inequality:
    """‖X − U(0)‖², which all else scales with."""
    bound = bounds.initial_error(run.n, run.share)
    start = run.record["squared_error"][..., :1]
    return run.claim("‖X − U(0)‖² ≤ 3n/(2δ)", bound.source, start, bound.value)


# The encoder trains: section 4, appendix B.


def neuron_distance(run: Run) -> Bound:
    """R', of each seed: shape (..., 1)."""
    start = run.norm[..., :1]
    return bounds_weak.neuron_distance(
        run.d, run.m, run.lambda_0, run.lambda_n, start, run.dynamics
    )


def encoder_claims(run: Run) -> tuple[Inequality, ...]:
    """Lemmas 4.1 to 4.5."""
    record, lambda_0, moved = run.record, run.lambda_0, run.record["largest_encoder_distance"]
    change, least = record["gram_change"], record["gram_smallest_eigenvalue"]
    perturbation = bounds_weak.gram_perturbation(run.n, run.d, moved, run.share)
    gradient = bounds_weak.neuron_gradient_norm(run.m, run.lambda_n, run.norm)
    reach = neuron_distance(run)
    initial, stable = source("Lemma 4.1"), source("Corollary 4.1")
    return (
        run.claim("‖K(0) − K^∞‖ ≤ λ_0/4", initial, record["gram_error"][..., :1], lambda_0 / 4),
        run.claim("¾ λ_0 ≤ λ_min(K(0))", initial, 0.75 * lambda_0, least[..., :1]),
        run.claim(
            "‖K − K(0)‖ ≤ 2n²dR/δ, R = max_r ‖w_r − w_r(0)‖",
            perturbation.source,
            *_after_start(change, perturbation.value),
        ),
        run.claim("‖K − K(0)‖ ≤ λ_0/4", stable, change, lambda_0 / 4),
        run.claim("λ_0/2 ≤ λ_min(K)", stable, lambda_0 / 2, least),
        run.claim(
            "‖∂L/∂w_r‖ ≤ √(λ_n/m) ‖X − U‖",
            gradient.source,
            record["largest_encoder_gradient"],
            gradient.value,
        ),
        run.claim("‖w_r − w_r(0)‖ ≤ R'", reach.source, moved, reach.value),
    )


def encoder_step(run: Run) -> tuple[Inequality, ...]:
    """Lemma A.4 and Claims B.1 to B.4, with R the distance that the run had after the step."""
    record, eta, flips = run.record, run.record["step_size"], run.record["flips"]
    radius = np.maximum(record["largest_encoder_distance"], record["next_largest_encoder_distance"])
    gradient = bounds_weak.neuron_gradient_norm(run.m, run.lambda_n, run.norm)
    share = np.asarray(eta * gradient.value / run.m**0.5)  # ‖a_r‖ = √d, and φ is 1-Lipschitz
    flipping = bounds_weak.pattern_flips(run.m, radius)
    unstable = bounds_weak.unstable_gram_norm(run.n, run.d, radius)
    given = (run.n, eta, radius)
    factor = bounds_weak.contraction_factor(run.n, run.d, run.lambda_0, run.lambda_n, eta, radius)
    return (
        run.claim(
            "|S_i^⊥| ≤ 4mR, R = max_r ‖w_r − w_r(0)‖",
            flipping.source,
            flips.max(axis=-1),
            flipping.value,
        ),
        run.claim(
            "‖v_2,i‖ ≤ η √λ_n |S_i^⊥| ‖X − U‖ / m",
            source("proof of Claim B.3"),
            *tightest(record["unstable_change"], share[..., None] * flips),
        ),
        run.claim(
            "‖K^⊥‖ ≤ 4ndR", unstable.source, record["perpendicular_gram_norm"], unstable.value
        ),
        _kernel_term(run),
        _term(run, "perpendicular_term", bounds_weak.unstable_gram_term(*given)),
        _term(run, "unstable_term", bounds_weak.unstable_change_term(*given)),
        _term(run, "squared_change", bounds_weak.squared_change_term(run.n, run.lambda_n, eta)),
        run.claim(
            "‖X − U(k+1)‖² ≤ (1 − ηλ_0/d + 16ηnR + η²nλ_n) ‖X − U(k)‖²",
            factor.source,
            record["next_squared_error"],
            factor.value * record["squared_error"],
        ),
    )


# Both layers train: section 5, appendix C.


def joint_distances(run: Run) -> tuple[Bound, Bound]:
    """The smallest R_w = R'_w and R_a = R'_a, of each seed: shape (..., 1)."""
    return bounds_joint.joint_distances(
        run.d,
        run.m,
        run.lambda_h,
        run.lambda_n,
        run.norm[..., :1],
        run.record["decoder_norm"][..., :1],
        run.record["hidden_norm"][..., :1],
        run.dynamics,
    )


def joint_claims(run: Run) -> tuple[Inequality, ...]:
    """Lemmas 5.1 to 5.7; R_w and R_a are the distances that the run had, up to the record."""
    record, lambda_h, lambda_n = run.record, run.lambda_h, run.lambda_n
    moved, followed = record["encoder_distance"], record["decoder_distance"]
    so_far = [np.maximum.accumulate(distance, axis=-1) for distance in (moved, followed)]
    decoder, features = record["decoder_norm"], record["hidden_norm"]
    change, least = record["decoder_gram_change"], record["decoder_gram_smallest_eigenvalue"]
    error, smallest = record["decoder_gram_error"], record["gram_smallest_eigenvalue"]

    perturbation = bounds_joint.decoder_gram_perturbation(run.m, lambda_n, features[..., :1], moved)
    step = (run.d, run.m, lambda_n, run.norm)
    of_encoder = bounds_joint.joint_encoder_gradient_norm(*step, decoder)
    of_decoder = bounds_joint.joint_decoder_gradient_norm(*step, features)
    start = (run.d, run.m, lambda_h, lambda_n, run.norm[..., :1])
    reach = bounds_joint.joint_encoder_distance(*start, decoder[..., :1], so_far[1], run.dynamics)
    follow = bounds_joint.joint_decoder_distance(*start, features[..., :1], so_far[0], run.dynamics)
    initial = source("Lemma 5.1", "λ_H for λ_0")
    stable = source("Lemma 5.2", "λ_H for λ_0")
    return (
        run.claim("‖H(0) − H^∞‖ ≤ λ_H/4", initial, error[..., :1], lambda_h / 4),
        run.claim("¾ λ_H ≤ λ_min(H(0))", initial, 0.75 * lambda_h, least[..., :1]),
        run.claim(
            "‖H − H(0)‖ ≤ (√λ_n/m) (2 ‖φ(XᵀW(0))‖ + √λ_n R) R, R = ‖W − W(0)‖",
            perturbation.source,
            *_after_start(change, perturbation.value),
        ),
        run.claim("‖H − H(0)‖ ≤ λ_H/4", stable, change, lambda_h / 4),
        run.claim("λ_H/2 ≤ λ_min(H)", stable, lambda_h / 2, least),
        run.claim("λ_0/2 ≤ λ_min(K)", source("Lemma 5.6"), run.lambda_0 / 2, smallest),
        run.claim(
            "‖∂L/∂W‖ ≤ √λ_n ‖A‖ ‖X − U‖ / √(md)",
            of_encoder.source,
            record["encoder_gradient_norm"],
            of_encoder.value,
        ),
        run.claim(
            "‖∂L/∂A‖ ≤ ‖φ(XᵀW)‖ ‖X − U‖ / √(md)",
            of_decoder.source,
            record["decoder_gradient_norm"],
            of_decoder.value,
        ),
        run.claim("‖W − W(0)‖ ≤ R'_w, R_a = ‖A − A(0)‖", reach.source, moved, reach.value),
        run.claim("‖A − A(0)‖ ≤ R'_a, R_w = ‖W − W(0)‖", follow.source, followed, follow.value),
    )


def joint_step(run: Run) -> tuple[Inequality, ...]:
    """Claims C.4 to C.8, with the norms that the run had."""
    record, eta = run.record, run.record["step_size"]
    norms = WeightNorms(
        encoder=np.maximum(record["encoder_norm"], record["next_encoder_norm"]),
        decoder=record["decoder_norm"],
        features=np.maximum(record["hidden_norm"], record["next_hidden_norm"]),
    )
    sizes = (run.d, run.m, run.lambda_n, eta)
    unstable = bounds_joint_step.joint_unstable_gram_norm(run.m, run.lambda_n, norms)
    terms = {
        "perpendicular_term": bounds_joint_step.joint_unstable_gram_term(*sizes, norms),
        "unstable_term": bounds_joint_step.joint_unstable_change_term(run.n, *sizes, norms),
        "second_order_term": bounds_joint_step.joint_second_order_term(
            run.n, *sizes, run.norm, norms
        ),
        "squared_change": bounds_joint_step.joint_squared_change_term(*sizes, norms),
    }
    return (
        run.claim(
            "‖K^⊥‖ ≤ (λ_n ‖A‖² + ‖φ(XᵀW)‖²) / m",
            unstable.source,
            record["perpendicular_gram_norm"],
            unstable.value,
        ),
        _kernel_term(run),
        *(_term(run, name, bound) for name, bound in terms.items()),
    )


def _after_start(smaller: np.ndarray, larger: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both sides from the second record on: at the first both are 0, up to rounding."""
    return smaller[..., 1:], np.asarray(larger)[..., 1:]


# Terms of one step.


def _kernel_term(run: Run) -> Inequality:
    """C_1; as the paper writes it, C_1 ≤ −(ηλ_0/d) ‖X − U(k)‖², both sides are negative."""
    bound = bounds.kernel_term(run.d, run.proof, run.record["step_size"])
    name = "λ_0" if run.trains == "encoder" else "λ_H"
    larger = -run.record["kernel_term"]
    smaller = -np.asarray(bound.value) * run.record["squared_error"]
    return run.claim(f"(η{name}/d) ‖X − U(k)‖² ≤ −C_1", bound.source, smaller, larger)


def _term(run: Run, name: str, bound: Bound) -> Inequality:
    """A term against its bound, a multiple of ‖X − U(k)‖²."""
    larger: Any = bound.value * run.record["squared_error"]
    return run.claim(bound.formula, bound.source, run.record[name], larger)
