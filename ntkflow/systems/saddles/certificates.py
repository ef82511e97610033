"""Runs on the octopus held against chapter 7: Lemmas 7.1 to 7.3, Theorem 7.3, Corollary 7.1."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.records import DIVERGENCE_IS_DATA
from ntkflow.systems.saddles import bounds, bounds_perturbed
from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants,
    check_constants,
    check_step_size,
    source,
)
from ntkflow.systems.saddles.escape import Escape, EscapeTimes
from ntkflow.systems.saddles.lipschitz import smoothness
from ntkflow.systems.saddles.octopus import check_domain, gradient, octopus, stage
from ntkflow.systems.saddles.scaled import from_scaled
from ntkflow.theory import Certificate, Inequality, inequality


@DIVERGENCE_IS_DATA
def certificate_escape_times(
    times: EscapeTimes,
    start: ArrayLike,
    constants: Constants = THESIS,
    *,
    step_size: ArrayLike,
    printed: bool = False,
) -> Certificate:
    """Hold the escape times of gradient descent against Lemmas 7.2 and 7.3, and their proof.

    Theorem 7.3's first claim is the last inequality here: η ≤ 1/ℓ ≤ 1/(2L).

    Args:
      times: of `escape_times`, or of a run that has left all saddle points; with or without leading
        axes of runs. inf, of a start that never leaves, satisfies all that is claimed.
      start: x^(0), of the same shape, (..., d).
      constants: L, γ, τ of the run.
      step_size: η of the run.
      printed: hold T_k^τ against 1/(2ηγ), and A_1 against 1/(ηγ), as printed; see `buffer_time`.

    Returns:
      The certificate, whose records are saddle points.

    Raises:
      ValueError: η is larger than 1/(2L), which the lemmas forbid; shapes that differ.

    Example:
      >>> from ntkflow.systems.saddles.escape import escape_times
      >>> start = jnp.full(10, -0.5)
      >>> times = escape_times(start, step_size=0.05)
      >>> certificate = certificate_escape_times(times, start, step_size=0.05)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    Reference: Du (2019), Lemmas 7.2 and 7.3 and section 7.7.1.
    """
    check_step_size(step_size, constants)
    buffer, left, x = (np.asarray(array) for array in (times.buffer, times.stage, start))
    if not buffer.shape == left.shape == x.shape or x.ndim == 0:
        raise ValueError(
            f"times.buffer has shape {buffer.shape}, times.stage {left.shape}, start {x.shape}; "
            "expected the same, (..., d)."
        )
    dtype = left.dtype
    buffer, left, x = (array.astype(float) for array in (buffer, left, x))
    d, (_, curvature, tau) = x.shape[-1], _host(constants)
    constants, step_size = _host(constants), np.asarray(step_size, float)
    half = 1 / (2 * step_size * curvature)

    def claim(statement: str, place: str, smaller: Any, larger: Any) -> Inequality:
        smaller, larger = np.broadcast_arrays(smaller, larger)
        settled = np.where(larger == np.inf, 0.0, smaller)  # never ≤ never
        return inequality(statement, source(place), settled, larger, dtype)

    proof = "proof of Lemma 7.2"
    entry = bounds.first_entry(x[..., :1], constants, step_size=step_size)
    crossing = bounds.buffer_time(constants, step_size=step_size, printed=printed)
    # Beyond 1/eps the times are rounded to more than a step, and so are their differences.
    inside = np.where(np.isfinite(left), left - buffer, 0.0)
    rounding = np.where(np.isfinite(left), float(jnp.finfo(dtype).eps) * left, 0.0)
    claims = [
        claim(f"T_k^τ ≤ {crossing.formula}", crossing.source, inside, crossing.value + rounding),
        claim(f"{entry.formula} ≤ T_1 − T_1^τ", entry.source, entry.value, buffer[..., :1]),
        claim(
            f"{'1/(ηγ)' if printed else '1/(2ηγ)'} ≤ T_1 − T_1^τ",
            proof if printed else f"{proof} (corrected)",
            2 * half if printed else half,
            buffer[..., :1],
        ),
        claim("T_1^τ ≤ T_1 − T_1^τ", proof, inside[..., :1], buffer[..., :1]),
    ]
    if d > 1:
        before, after, waiting = buffer[..., :-1], buffer[..., 1:], x[..., 1:]
        both = (before, waiting, constants)
        ratio = bounds.earliest_entry(*both, step_size=step_size, printed=True)
        earliest = bounds.earliest_entry(*both, step_size=step_size)
        latest = bounds.latest_entry(*both, step_size=step_size)
        claims += [
            claim(f"{ratio.formula} ≤ T_{{k+1}} − T_{{k+1}}^τ", proof, ratio.value, after),
            claim(
                f"{earliest.formula} ≤ A_{{k+1}}", "section 7.7.1, derived", earliest.value, after
            ),
            claim(f"A_{{k+1}} ≤ {latest.formula}", "section 7.7.1, derived", after, latest.value),
        ]
    order = np.arange(1, d + 1)
    last = bounds.escape_time(order, constants, step_size=step_size)
    lemma = bounds.escape_time(d, constants, step_size=step_size, printed=True)
    claims += [
        claim(f"{last.formula.replace('d', 'k')} ≤ T_k", proof, last.value, left),
        claim(f"{lemma.formula} ≤ T_d", "Lemmas 7.2 and 7.3", lemma.value, left[..., -1:]),
    ]
    return Certificate(
        theorem="Du (2019), Lemmas 7.2 and 7.3: gradient descent leaves saddle points late",
        hypotheses=_start_hypotheses(np.abs(x).max(axis=-1, keepdims=True), tau, dtype),
        claims=tuple(claims),
    )


@DIVERGENCE_IS_DATA
def certificate_descent(
    run: Any, constants: Constants = THESIS, *, step_size: ArrayLike
) -> Certificate:
    """Hold the iterates of gradient descent against Theorem 7.3's first claim and Corollary 7.1.

    Args:
      run: the `Escape` of `simulate`, from step 0 on; with or without leading axes of runs.
      constants: L, γ, τ of the run.
      step_size: η of the run.

    Returns:
      The certificate.

    Raises:
      ValueError: η is larger than 1/(2L), which the lemmas forbid.

    Example:
      >>> from ntkflow.systems.saddles.escape import simulate
      >>> run = simulate(
      ...     jnp.array([0.5, -0.5]), Constants(1.0), step_size=0.06, steps=60, every=20)
      >>> certificate = certificate_descent(run, Constants(1.0), step_size=0.06)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    Reference: Du (2019), Theorem 7.3, Corollary 7.1, Remark 7.2.
    """
    check_step_size(step_size, constants)
    x, dtype = _points(run), np.asarray(run.objective).dtype
    constants, d = _host(constants), x.shape[-1]
    tau, (_, ell, rho) = constants.tau, smoothness(d, constants)
    steps, behind = np.asarray(run.steps), np.asarray(run.stage)
    horizon = bounds.escape_time(d, constants, step_size=np.asarray(step_size, float)).value
    early, waiting = steps <= horizon, behind < d
    away = np.linalg.norm(np.abs(x) - 4 * tau, axis=-1)
    least = bounds.distance_to_minima(constants).value
    slope, curved = np.asarray(run.gradient_norm, float), _least_curvature(x, constants)
    # Half of the largest: no saddle point is ε-second-order stationary by a margin.
    epsilon = bounds.stationarity_accuracy(constants, rho).value / 2
    distance = np.maximum(slope / epsilon, -curved / (rho * epsilon) ** 0.5)

    def claim(statement: str, place: str, smaller: Any, larger: Any, where: Any) -> Inequality:
        smaller, larger = np.where(where, smaller, 0.0), np.where(where, larger, 0.0)
        return inequality(statement, source(place), smaller, larger, dtype)

    start = np.abs(x[..., 0, :]).max(axis=-1)[..., None]
    return Certificate(
        theorem="Du (2019), Theorem 7.3, claim 1, and Corollary 7.1",
        hypotheses=(
            *_start_hypotheses(start, tau, dtype),
            inequality(
                "η ≤ 1/ℓ, ℓ an upper bound",
                source("Theorem 7.3"),
                np.asarray(step_size, float),
                1 / ell,
                dtype,
            ),
        ),
        claims=(
            inequality(
                "all iterates are in the octopus",
                source("proof of Lemma 7.2"),
                1.0,
                np.asarray(run.inside, float)[..., None],
                dtype,
            ),
            claim(
                "|x_d| ≤ 2τ for t ≤ ((L+γ)/γ)^{d−1} / (2ηγ)",
                "Lemmas 7.2 and 7.3",
                np.abs(x[..., -1]),
                2 * tau,
                early,
            ),
            claim(
                "2τ ≤ min ‖x − x*‖ over local minima, for the same t",
                "Theorem 7.3, claim 1, constants derived",
                least,
                away,
                early,
            ),
            claim(
                "1 ≤ max(‖∇f‖/ε, −λ_min/√(ρε)) with ε = ½ min(2γτ, 4γ²/ρ), while |x_d| < 2τ",
                "Corollary 7.1 and Remark 7.2",
                1.0,
                distance,
                waiting,
            ),
        ),
    )


@DIVERGENCE_IS_DATA
def certificate_perturbed(
    run: Any,
    constants: Constants = THESIS,
    *,
    step_size: ArrayLike,
    radius: ArrayLike,
    gradient_threshold: ArrayLike,
    epsilon: ArrayLike,
    delta: ArrayLike,
    constant: ArrayLike = 1.0,
) -> Certificate:
    """Hold a run of perturbed gradient descent against Theorem 7.3's second claim.

    Args:
      run: the `Escape` of `simulate_perturbed`, from step 0 on; with or without axes of runs.
      constants, step_size, radius, gradient_threshold: those of the run.
      epsilon: how close to a local minimum it must come.
      delta: probability of failure; the claim has e^{−d}. It enters the number of steps.
      constant: the factor that the number of steps leaves open.

    Returns:
      The certificate.

    Raises:
      ValueError: η is larger than 1/(2L): the proof that iterates stay inside needs it.

    Example:
      >>> from ntkflow.systems.saddles.escape import simulate_perturbed
      >>> settings = {"step_size": 0.25, "radius": 0.027, "gradient_threshold": 0.027}
      >>> run = simulate_perturbed(jax.random.key(0), jnp.array([0.5, 0.0]), Constants(1.0),
      ...                          waiting_time=1, steps=100, every=50, **settings)
      >>> certificate = certificate_perturbed(
      ...     run, Constants(1.0), epsilon=0.1, delta=0.1, **settings)
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    Reference: Du (2019), Theorem 7.3 and section 7.7.2.
    """
    check_step_size(step_size, constants)
    x, dtype = _points(run), np.asarray(run.objective).dtype
    constants, d = _host(constants), x.shape[-1]
    tau = constants.tau
    away = np.linalg.norm(np.abs(x) - 4 * tau, axis=-1)
    reached = away <= epsilon
    steps = np.broadcast_to(np.asarray(run.steps, float), away.shape)
    first = np.where(reached, steps, np.inf).min(axis=-1)[..., None]
    sup, ell, rho = smoothness(d, constants)
    allowed = bounds_perturbed.perturbed_iterations(
        ell, rho, sup, d, epsilon, delta, constant=constant
    )

    def entry(statement: str, place: str, smaller: Any, larger: Any) -> Inequality:
        return inequality(statement, source(place), np.asarray(smaller), np.asarray(larger), dtype)

    proof, inside = "section 7.7.2", np.asarray(run.inside, float)[..., None]
    steepest = bounds_perturbed.largest_gradient_threshold(constants).value
    start = np.abs(x[..., 0, :]).max(axis=-1)[..., None]
    return Certificate(
        theorem="Du (2019), Theorem 7.3, claim 2: perturbed gradient descent",
        hypotheses=(
            *_start_hypotheses(start, tau, dtype),
            entry("r ≤ τ/20", proof, radius, bounds_perturbed.largest_radius(constants).value),
            entry("g_thres ≤ γτ/10", proof, gradient_threshold, steepest),
        ),
        claims=(
            entry("all iterates are in the octopus", proof, 1.0, inside),
            entry(
                f"the first t with ‖x − x*‖ ≤ ε is at most {allowed.formula}",
                "Theorem 7.3, claim 2",
                first,
                allowed.value,
            ),
        ),
    )


def certificate_landscape(x: ArrayLike, constants: Constants = THESIS) -> Certificate:
    """Hold points of the octopus, its saddle points and its minima against Lemma 7.1.

    Outside of the buffers f is quadratic in every coordinate, around the nearest of the points that
    the lemma names: ‖∇f(x)‖ ≥ 2γ ‖x − s‖. In a buffer ‖∇f‖ ≥ 2γτ. So there are no others.

    Args:
      x: points of the octopus, shape (points, d).
      constants: L, γ, τ.

    Returns:
      The certificate, whose records are points.

    Raises:
      ValueError: x is not (points, d), or holds a point outside of the octopus.

    Example:
      >>> certificate = certificate_landscape(jnp.array([[0.5, 0.1], [3.0, 1.0], [-12.0, 4.0]]))
      >>> bool(certificate.holds)
      True

    Reference: Du (2019), Lemma 7.1 and Remark 7.2.
    """
    points = check_domain(checks.matrix("x", x), constants)
    d, dtype = points.shape[1], points.dtype
    behind = np.asarray(stage(points, constants))
    steep, curvature, tau = _host(constants)
    stationary = np.tri(d + 1, d, -1) * 4 * tau  # row i has left i saddle points; d is the minimum
    rows = stationary.astype(dtype)
    both = jnp.asarray(np.concatenate([rows, points]))  # at once: one program
    slopes = np.linalg.norm(np.asarray(gradient(both, constants)), axis=-1)
    still, slope = slopes[: d + 1], slopes[d + 1 :]
    *at_saddles, at_minimum = _least_curvature(rows, constants)
    size = np.abs(np.asarray(points, float))
    crossing = ((size > tau) & (size < 2 * tau)).any(axis=-1)
    # The saddle point or minimum whose leading coordinates x has left: signs do not matter.
    away = np.linalg.norm(size - stationary[behind], axis=-1)
    unit = 100 * float(jnp.finfo(dtype).eps) * steep

    def claim(statement: str, place: str, smaller: Any, larger: Any) -> Inequality:
        return inequality(statement, source(place), smaller, larger, dtype)

    return Certificate(
        theorem="Du (2019), Lemma 7.1: d saddle points and one minimum in each arm",
        hypotheses=(),
        claims=(
            claim("∇f = 0 at them, up to rounding", "Lemma 7.1", still, unit * tau * d**0.5),
            claim(
                "λ_min(∇²f) ≤ −2γ at the saddle points",
                "Lemma 7.1",
                at_saddles,
                unit - 2 * curvature,
            ),
            claim("2L ≤ λ_min(∇²f) at the minimum", "Lemma 7.1", 2 * steep - unit, at_minimum),
            claim(
                "2γτ ≤ ‖∇f‖ in a buffer",
                "Remark 7.2, constant derived",
                np.where(crossing, 2 * curvature * tau, 0.0),
                slope,
            ),
            claim(
                "2γ ‖x − s‖ ≤ ‖∇f‖ elsewhere, s the nearest of them",
                "Lemma 7.1, derived",
                np.where(crossing, 0.0, 2 * curvature * away),
                slope + unit * tau,
            ),
        ),
    )


def _start_hypotheses(largest: np.ndarray, tau: ArrayLike, dtype: Any) -> tuple[Inequality, ...]:
    place = source("Lemmas 7.2 and 7.3")
    return (
        inequality("e ≤ τ", place, np.asarray(np.e), np.asarray(tau), dtype),
        inequality("|x_j^0| ≤ 1", place, largest, 1.0, dtype),
    )


def _host(constants: Constants) -> Constants:
    check_constants(constants)
    return Constants(*(float(np.asarray(constant)) for constant in constants))


def _points(run: Any) -> np.ndarray:
    """The iterates at the records, shape (..., records, d)."""
    if not isinstance(run, Escape):
        raise ValueError(
            f"run is of type {type(run).__name__}; expected the Escape of simulate(...)."
        )
    x, steps = np.asarray(from_scaled(run.x)), np.asarray(run.steps)
    if np.any(steps[..., 0] != 0):
        raise ValueError(f"The first record is of step {steps[..., 0]}; expected 0, the start.")
    return x


def _least_curvature(x: np.ndarray, constants: Constants) -> np.ndarray:
    """λ_min(∇²f) at points (..., d)."""
    flat = jnp.asarray(x.reshape(-1, x.shape[-1]))
    return np.asarray(_eigenvalues(flat, constants)).reshape(x.shape[:-1])


@jax.jit
def _eigenvalues(x: jax.Array, constants: Constants) -> jax.Array:
    value = lambda point: octopus(point, constants)  # noqa: E731
    one = lambda point: jnp.linalg.eigvalsh(jax.hessian(value)(point))[0]  # noqa: E731
    return jax.vmap(one)(x)
