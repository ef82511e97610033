"""Algorithm 1 in five numbers: a run depends on v and a through them alone, exactly.

v matters through its part along w* and the length of the rest, a through 1ᵀa, aᵀa* and the length
of what is orthogonal to 1 and a*. Everything is elementwise: runs × settings are arrays.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import align
from ntkflow.systems.weight_normalized_filter.arguments import check
from ntkflow.systems.weight_normalized_filter.network import (
    Teacher,
    Variables,
    check_teacher,
    read,
)
from ntkflow.training.recording import scan_recorded


class Reduced(NamedTuple):
    """Where a run stands; arrays of one shape.

    Attributes:
      parallel: v·w*/‖w*‖.
      orthogonal: the norm of the rest of v, 0 or greater.
      total: S = 1ᵀa.
      overlap: Q = aᵀa*.
      remainder: the norm of the part of a that is orthogonal to 1 and a*, 0 or greater.
    """

    parallel: Any
    orthogonal: Any
    total: Any
    overlap: Any
    remainder: Any


class Problem(NamedTuple):
    """What of a teacher matters to a run; arrays that broadcast against those of the runs.

    Attributes:
      patches: k, the number of patches.
      sum: s = 1ᵀa*.
      norm: ‖a*‖ > 0.
      filter_norm: ‖w*‖ > 0.
    """

    patches: Any
    sum: Any
    norm: Any
    filter_norm: Any = 1.0


def reduce(variables: Variables, teacher: Teacher) -> Reduced:
    """Compute the five numbers of v and a.

    Args:
      variables: {"params": {"filter": v (p,), "output": a (k,)}}; for several map with `jax.vmap`.
      teacher: w* (p,) and a* (k,).

    Returns:
      Reduced of scalars.

    Raises:
      ValueError: the shapes do not fit, a vector has no direction.

    Example:
      >>> teacher = Teacher(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0, 0.0]))
      >>> variables = {"params": {"filter": jnp.array([3.0, 4.0]), "output": jnp.arange(3.0)}}
      >>> [round(float(x), 6) for x in reduce(variables, teacher)]
      [4.0, 3.0, 3.0, 1.0, 0.707107]
    """
    v, a, teacher = read(variables, teacher)
    unit = teacher.filter / jnp.linalg.norm(teacher.filter)
    parallel = jnp.sum(v * unit)
    across = teacher.output - jnp.mean(teacher.output)
    square = jnp.sum(across**2)
    square = jnp.where(_resolved(square, jnp.sum(teacher.output**2)), square, jnp.inf)
    rest = a - jnp.mean(a)
    rest = rest - jnp.sum(rest * across) / square * across
    return Reduced(
        parallel,
        jnp.linalg.norm(v - parallel * unit),
        jnp.sum(a),
        jnp.sum(a * teacher.output),
        jnp.linalg.norm(rest),
    )


def reduce_teacher(teacher: Teacher) -> Problem:
    """Compute what of a teacher matters to a run.

    Example:
      >>> reduced = reduce_teacher(Teacher(jnp.array([0.0, 2.0]), jnp.array([3.0, 4.0, 0.0])))
      >>> reduced.patches, *(float(x) for x in reduced[1:])
      (3, 7.0, 5.0, 2.0)
    """
    w, a = check_teacher(teacher)
    return Problem(a.size, jnp.sum(a), jnp.linalg.norm(a), jnp.linalg.norm(w))


def table_problem(patches: ArrayLike, ratio: ArrayLike, norm: ArrayLike) -> Problem:
    """The problem with ‖w*‖ = 1, ‖a*‖ = norm and (1ᵀa*)²/‖a*‖² = ratio, in [0, k], elementwise.

    Args:
      patches: k.
      ratio: (1ᵀa*)²/‖a*‖²; 1ᵀa* is its root, 0 or greater.
      norm: ‖a*‖.

    Returns:
      The problem; all may be traced.

    Raises:
      ValueError: k is not whole and positive, the ratio out of [0, k], the norm not positive.

    Example:
      >>> [float(x) for x in table_problem(25, 4.0, 0.5)]
      [25.0, 1.0, 0.5, 1.0]

    Reference: Du (2019), section 5.5.2.
    """
    check(ratio=ratio)
    patches, ratio, norm = align(patches, ratio, norm)
    problem = Problem(patches, jnp.sqrt(ratio) * norm, norm)
    check_problem(problem)
    return problem


def advance(state: Reduced, problem: Problem, step_size: ArrayLike) -> Reduced:
    """Take one step of gradient descent, exactly that of v and a.

    With r² = v_∥² + v_⊥², φ = ∠(v, w*), c = η‖w*‖Q(π − φ)/(2πr) and R the remainder,

        v_∥⁺ = v_∥ + c sin²φ               v_⊥⁺ = |v_⊥ − c sin φ cos φ|
        S⁺ = S − (η/2π)[(k + π − 1) S − (k + g(φ) − 1)‖w*‖s]
        Q⁺ = Q − (η/2π)[sS + (π − 1) Q − ‖w*‖(s² + (g(φ) − 1)‖a*‖²)]
        R⁺ = |1 − η(π − 1)/2π| R

    (5.4) prints ‖aᵗ‖² for ‖a*‖², and the recursion of S in section 5.4.1 k − π − 1 and a
    denominator 2: this is what follows from Theorem 5.2, and equals `descend` on
    `population_loss` to rounding (tests, test_weight_normalized_reduction.py).

    Args:
      state: arrays that broadcast against those of `problem` and the step size.
      problem: of `reduce_teacher`.
      step_size: η.

    Returns:
      The state after the step, in the shape all broadcast to.

    Example:
      >>> state = Reduced(0.0, 1.0, 0.5, 0.25, 0.0)
      >>> [round(float(x), 6) for x in advance(state, Problem(4, 1.0, 1.0), 0.2)]
      [0.0125, 1.0, 0.529577, 0.248873, 0.0]

    Reference: Du (2019), Algorithm 1 and Theorem 5.2.
    """
    state, problem, step_size = aligned(state, problem, step_size)
    k, s, norm, filter_norm = problem
    inverse, cosine, sine, rest = polar(state)
    unit = step_size / (2 * np.pi)
    turn = unit * filter_norm * state.overlap * rest * inverse
    g = rest * cosine + sine
    total, overlap = state.total, state.overlap
    return Reduced(
        state.parallel + turn * sine**2,
        jnp.abs(state.orthogonal - turn * sine * cosine),
        total - unit * ((k + np.pi - 1) * total - (k + g - 1) * filter_norm * s),
        overlap
        - unit * (s * total + (np.pi - 1) * overlap - filter_norm * (s**2 + (g - 1) * norm**2)),
        jnp.abs(1 - unit * (np.pi - 1)) * state.remainder,
    )


def reduced_loss(state: Reduced, problem: Problem) -> jax.Array:
    """Compute `population_loss` from the five numbers.

    (1/4π)[(π − 1)‖a − ‖w*‖a*‖² + 2(π − g(φ))‖w*‖Q + (S − ‖w*‖s)²], without cancellation near 0.

    Example:
      >>> spurious = Reduced(-1.0, 0.0, 0.0, -1 / (jnp.pi - 1), 0.0)
      >>> round(float(reduced_loss(spurious, Problem(4, 0.0, 1.0))), 6)
      0.133264

    Reference: Du (2019), Theorem 5.1, corrected.
    """
    state, problem = aligned(state, problem)
    _, cosine, sine, rest = polar(state)
    phi = np.pi - rest
    # π − g: near φ = 0 the squared half angle from v_⊥ itself, near π from the rest of the angle.
    small = jnp.arctan2(state.orthogonal, state.parallel)
    near = 2 * np.pi * jnp.sin(small / 2) ** 2 + small * cosine - sine
    gap = jnp.where(phi < np.pi / 2, jnp.maximum(near, 0), np.pi - rest * cosine - sine)
    excess = state.total - problem.filter_norm * problem.sum
    return (
        (np.pi - 1) * _squared_output_error(state, problem)
        + 2 * gap * problem.filter_norm * state.overlap
        + excess**2
    ) / (4 * np.pi)


def reduced_observables(state: Reduced, problem: Problem) -> dict[str, jax.Array]:
    """Compute the quantities of Figure 5.2, and more, from the five numbers.

    Returns:
      By the names of `observables`, "loss" among them: angle φ, output_error ‖a − ‖w*‖a*‖,
      sum_error |1ᵀa − ‖w*‖1ᵀa*|, overlap aᵀa*, total 1ᵀa, filter_norm ‖v‖.

    Example:
      >>> state = Reduced(0.0, 1.0, 0.0, 0.0, 0.0)
      >>> found = reduced_observables(state, Problem(4, 1.0, 1.0))
      >>> round(float(found["angle"]), 6), float(found["output_error"]), float(found["sum_error"])
      (1.570796, 1.0, 1.0)

    Reference: Du (2019), section 5.5.1.
    """
    state, problem = aligned(state, problem)
    return {
        "angle": jnp.arctan2(state.orthogonal, state.parallel),
        "output_error": jnp.sqrt(_squared_output_error(state, problem)),
        "sum_error": jnp.abs(state.total - problem.filter_norm * problem.sum),
        "overlap": state.overlap,
        "total": state.total,
        "filter_norm": jnp.hypot(state.parallel, state.orthogonal),
        "loss": reduced_loss(state, problem),
    }


def simulate(
    state: Reduced, problem: Problem, step_size: ArrayLike, steps: int, every: int = 1
) -> tuple[jax.Array, Reduced]:
    """Take `steps` steps and record the states, as `descend` does: at 0, `every`, …, the last.

    Args:
      state: runs of any shape.
      problem, step_size: arrays that broadcast against the runs.
      steps, every: numbers of steps.

    Returns:
      The numbers of steps at the records, shape (records,), and the states, records last:
      (..., records).

    Raises:
      ValueError: a number of steps, the step size, k or a norm is not positive, or |1ᵀa*| is
        larger than √k ‖a*‖.

    Example:
      >>> start = Reduced(*jnp.array([0.1, 1.0, 0.1, 0.1, 0.0])[:, None] * jnp.ones((5, 3)))
      >>> steps, path = simulate(start, Problem(4, 1.0, 1.0), 0.2, steps=100, every=40)
      >>> steps.tolist(), path.overlap.shape, [round(float(x), 3) for x in path.overlap[0]]
      ([0, 40, 80, 100], (3, 4), [0.1, 0.504, 0.942, 0.986])
    """
    steps, every = checks.positive_int("steps", steps), checks.positive_int("every", every)
    check(step_size=step_size)
    check_problem(problem)
    return _path(state, problem, step_size, steps, every)


def aligned(state: Reduced, problem: Problem, *more: ArrayLike) -> tuple[Any, ...]:
    """All with one dtype and one number of axes, so that they broadcast; not yet broadcast."""
    arrays = align(*state, *problem, *more)
    return Reduced(*arrays[:5]), Problem(*arrays[5:9]), *arrays[9:]


def whole(state: Reduced, problem: Problem, step_size: ArrayLike) -> tuple[Any, ...]:
    """As `aligned`, the state in the shape that all broadcast to."""
    state, problem, step = aligned(state, problem, step_size)
    shape = jnp.broadcast_shapes(*(part.shape for part in (*state, *problem, step)))
    return Reduced(*(jnp.broadcast_to(part, shape) for part in state)), problem, step


def polar(state: Reduced) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """1/‖v‖, cos φ, sin φ and π − φ.

    arctan2 would take more time than all the rest of a step: on a CPU it is not vectorized.
    """
    x, y = state.parallel, state.orthogonal
    square = x**2 + y**2
    inverse = jax.lax.rsqrt(square)
    # tan(θ/8) by half angles, θ in [0, π/2] the angle with the nearer of ±w*; then Taylor's series
    # of the arctangent, whose next term is below rounding.
    tangent = y / (square * inverse + jnp.abs(x))
    for _ in range(2):
        tangent = tangent / (1 + jnp.sqrt(1 + tangent**2))
    terms = 12 if tangent.dtype == jnp.float64 else 6
    z, series = tangent**2, jnp.zeros_like(tangent)
    for n in reversed(range(terms)):
        series = series * z + (-1) ** n / (2 * n + 1)
    theta = 8 * tangent * series
    return inverse, x * inverse, y * inverse, jnp.where(x > 0, np.pi - theta, theta)


def squared_across(problem: Problem) -> jax.Array:
    """‖a* − (s/k)1‖², exactly 0 where rounding alone tells a* from a multiple of 1."""
    square = problem.norm**2
    across = square - problem.sum**2 / problem.patches
    return jnp.where(_resolved(across, square), across, 0)


def check_problem(problem: Any) -> None:
    """Refuse what no teacher has, as far as it can be read."""
    if not isinstance(problem, Problem):
        raise ValueError(
            f"problem is of type {type(problem).__name__}; expected Problem(patches, sum, norm), "
            "e.g. of reduce_teacher(teacher)."
        )
    check(k=problem.patches, norm=problem.norm, filter_norm=problem.filter_norm)
    check(target_sum=problem.sum)
    if not all(checks.is_concrete(part) for part in problem[:3]):
        return
    k, s, norm = (np.asarray(part, float) for part in problem[:3])
    if np.any(s**2 > k * norm**2 * (1 + 1e-5)):
        raise ValueError(
            f"sum is {problem.sum}, norm {problem.norm} and k {problem.patches}; expected "
            "(1ᵀa*)² ≤ k ‖a*‖²: no a* has them."
        )


@functools.partial(jax.jit, static_argnums=(3, 4))  # once for all calls of a length
def _path(state, problem, step_size, steps, every):
    state, problem, step_size = whole(state, problem, step_size)
    _, recorded, history = scan_recorded(
        lambda now, _: (advance(now, problem, step_size), {}),
        lambda _, now: {"state": now},
        state,
        steps,
        every,
        start=jnp.zeros((), jnp.int32),
    )
    return recorded, jax.tree.map(lambda rows: jnp.moveaxis(rows, 0, -1), history["state"])


def _squared_output_error(state: Reduced, problem: Problem) -> jax.Array:
    """‖a − ‖w*‖a*‖² = e_S²/k + (e_Q − e_S s/k)²/‖a* − (s/k)1‖² + R², e the errors of S and Q."""
    across = squared_across(problem)
    present = across > 0
    error = state.total - problem.filter_norm * problem.sum
    rest = state.overlap - problem.filter_norm * problem.norm**2
    rest = rest - error * problem.sum / problem.patches
    second = jnp.where(present, rest**2 / jnp.where(present, across, 1), 0)
    return error**2 / problem.patches + second + state.remainder**2


def _resolved(across: jax.Array, square: jax.Array) -> jax.Array:
    return across > 32 * jnp.finfo(across.dtype).eps * square
