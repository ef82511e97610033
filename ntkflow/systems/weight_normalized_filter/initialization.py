"""Where runs start: the random start of Theorem 5.4, its four signs, restarts and halving."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import align
from ntkflow.layers import ball, sphere
from ntkflow.systems.weight_normalized_filter.arguments import check, one_number
from ntkflow.systems.weight_normalized_filter.network import Teacher, check_teacher
from ntkflow.systems.weight_normalized_filter.population import population_loss
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    check_problem,
    squared_across,
)
from ntkflow.training.descent import descend

SIGNS = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])  # of v and of a


class Learned(NamedTuple):
    """What `learn_filter` found.

    Attributes:
      variables: v and a with the smallest loss.
      loss: their loss.
      losses: of all runs at the end, shape (restarts, halvings + 1, 4); the signs of (v, a) are
        ++, +−, −+, −−.
      succeeded: which runs ended with a loss of at most ε‖w*‖²‖a*‖², of the same shape.
    """

    variables: Any
    loss: jax.Array
    losses: jax.Array
    succeeded: jax.Array


def initialize(key: jax.Array, teacher: Teacher, radius: ArrayLike | None = None) -> dict[str, Any]:
    """Draw v uniformly on the unit sphere, and a uniformly in a ball around 0.

    Args:
      key: PRNG key.
      teacher: w* (p,) and a* (k,).
      radius: of the ball; None is |1ᵀa*|‖w*‖/√k, which makes |1ᵀa| ≤ |1ᵀa*|‖w*‖.

    Returns:
      {"params": {"filter": v (p,), "output": a (k,)}}.

    Raises:
      ValueError: the teacher has no direction, the radius is negative.

    Example:
      >>> teacher = Teacher(jnp.array([0.0, 1.0]), jnp.array([3.0, 4.0, 0.0]))
      >>> variables = initialize(jax.random.key(0), teacher)
      >>> round(float(jnp.linalg.norm(variables["params"]["filter"])), 6)
      1.0
      >>> bool(abs(variables["params"]["output"].sum()) <= 7)
      True

    Reference: Du (2019), Theorem 5.4.
    """
    w, a = check_teacher(teacher)
    if radius is None:
        radius = _radius(a.size, jnp.sum(a), jnp.linalg.norm(w))
    output = ball(radius)
    for_filter, for_output = jax.random.split(key)
    shared = sphere()(for_filter, w.shape, w.dtype)
    return {"params": {"filter": shared, "output": output(for_output, a.shape, a.dtype)}}


def sign_trials(variables: Any) -> Any:
    """Stack the four starts (v, a), (v, −a), (−v, a) and (−v, −a).

    Unless aᵀa* or vᵀw* is 0, one of them has aᵀa* > 0 and φ < π/2, and leads to the global minimum
    if |1ᵀa| ≤ |1ᵀa*|‖w*‖; where 1ᵀa* is small against ‖a*‖, another leads to the spurious one
    (Theorem 5.5).

    Args:
      variables: {"params": {"filter": v (p,), "output": a (k,)}}, or a `Reduced` of any shape.

    Returns:
      The same with a leading axis of 4.

    Example:
      >>> start = {"params": {"filter": jnp.array([1.0, 2.0]), "output": jnp.array([3.0])}}
      >>> sign_trials(start)["params"]["output"].tolist()
      [[3.0], [-3.0], [3.0], [-3.0]]

    Reference: Du (2019), Theorem 5.4.
    """
    if isinstance(variables, Reduced):
        v, a = SIGNS.T
        one = np.ones(4)
        return Reduced(*map(_signed, variables, (v, one, a, a, one)))
    leaves = variables["params"]
    return {
        "params": {
            name: _signed(leaves[name], sign)
            for name, sign in zip(("filter", "output"), SIGNS.T, strict=True)
        }
    }


def initialize_reduced(
    key: jax.Array,
    runs: int,
    problem: Problem,
    p: ArrayLike,
    radius: ArrayLike | None = None,
) -> Reduced:
    """Draw what `reduce(initialize(...))` has the law of, without vectors of length k or p.

    Two coordinates of a uniform point on the sphere in ℝᵐ have a squared length of 1 − U^(2/(m−2)),
    in a uniform direction; the ball in ℝᵏ is the sphere in ℝᵏ⁺² without two coordinates. Five
    uniform numbers thus give v_∥, v_⊥, 1ᵀa, aᵀa* and the remainder.

    Args:
      key: PRNG key.
      runs: number of runs of each problem.
      problem: arrays that broadcast to the shape of the settings.
      p: entries of the filter, an array that broadcasts against the settings.
      radius: of the ball, likewise; None is |1ᵀa*|‖w*‖/√k.

    Returns:
      Reduced, shape (runs, *settings): all runs are independent.

    Raises:
      ValueError: `runs`, k or p is no whole number greater than 0, no a* has k, 1ᵀa* and ‖a*‖.

    Example:
      >>> problem = Problem(jnp.array([25, 100]), 1.0, 0.5)
      >>> start = initialize_reduced(jax.random.key(0), 1000, problem, p=6)
      >>> start.total.shape, bool((abs(start.total) <= 1).all())
      ((1000, 2), True)
      >>> jnp.mean(start.parallel**2, axis=0).round(1).tolist()  # 1/6
      [0.2, 0.2]

    Reference: Du (2019), Theorem 5.4.
    """
    runs = checks.positive_int("runs", runs)
    check_problem(problem)
    check(p=p)
    if radius is not None:
        check(radius=radius)
    return _draw(key, problem, p, radius, runs)


def learn_filter(
    key: jax.Array,
    teacher: Teacher,
    step_size: ArrayLike,
    steps: int,
    *,
    restarts: int = 1,
    halvings: int = 0,
    radius: ArrayLike | None = None,
    epsilon: ArrayLike = 1e-3,
) -> Learned:
    """Learn w* and a* by Algorithm 1: four signs of each start, restarts, and halved starts.

    Each restart draws v and a anew; each halving divides a by 2 once more, so that |1ᵀa| ≤
    |1ᵀa*|‖w*‖ is met in the end whatever the radius was. All runs are one vectorized `descend` on
    `population_loss`.

    Args:
      key: PRNG key.
      teacher: w* (p,) and a* (k,).
      step_size: η; below 2π/(k + π − 1), Lemma 5.4.
      steps: of each run.
      restarts: number of random starts.
      halvings: how often a is halved.
      radius: of the ball that a is drawn from; None is |1ᵀa*|‖w*‖/√k.
      epsilon: ε of what counts as success.

    Returns:
      Learned: the best variables, and the losses of all runs, NaN where one diverged.

    Raises:
      ValueError: a number is not positive, `halvings` or the radius is negative, the teacher has no
        direction.

    Example:
      >>> teacher = Teacher(jnp.array([0.0, 1.0]), jnp.array([3.0, 4.0, 0.0]))
      >>> learned = learn_filter(jax.random.key(0), teacher, 0.3, steps=100, halvings=1)
      >>> learned.losses.shape, bool(learned.succeeded.any(axis=-1).all())
      ((1, 2, 4), True)
      >>> learned.variables["params"]["output"].round(3).tolist()
      [3.0, 4.0, 0.0]

    Reference: Du (2019), Theorem 5.4 and Remark 5.3.
    """
    steps = checks.positive_int("steps", steps)
    restarts = checks.positive_int("restarts", restarts)
    if halvings != 0:
        halvings = checks.positive_int("halvings", halvings)
    one_number(step_size=step_size, epsilon=epsilon)
    check(step_size=step_size, epsilon=epsilon)
    if radius is not None:
        one_number(radius=radius)
        check(radius=radius)
    teacher = check_teacher(teacher)
    return _learn(key, teacher, step_size, radius, epsilon, steps, restarts, halvings)


@functools.partial(jax.jit, static_argnums=4)  # once for all calls of a shape
def _draw(key, problem, p, radius, runs):
    k, s, norm, filter_norm, p, given = align(*problem, p, 0.0 if radius is None else radius)
    radius = _radius(k, s, filter_norm) if radius is None else given
    arrays = (k, s, norm, filter_norm, p, radius)
    shape = (runs, *jnp.broadcast_shapes(*(array.shape for array in arrays)))
    k, s, norm, filter_norm, p, radius = (array[None] for array in arrays)
    uniform = jax.random.uniform(key, (5, *shape), radius.dtype)

    parallel, second, rest = _two_of_sphere(uniform[0], uniform[1], p)
    parallel = jnp.where(p > 1, parallel, jnp.where(uniform[1] < 0.5, 1, -1))
    orthogonal = jnp.where(p > 1, jnp.hypot(second, rest), 0)

    first, second, rest = (radius * part for part in _two_of_sphere(uniform[2], uniform[3], k + 2))
    # The first along 1, the second along what is left of a*: nowhere if a* is a multiple of 1.
    first = jnp.where(k > 1, first, radius * (2 * uniform[3] - 1))
    second = jnp.where(k > 1, second, 0)
    rest = rest * jnp.where(k > 2, uniform[4] ** (1 / jnp.maximum(k - 2, 1)), 0)
    across = jnp.sqrt(squared_across(Problem(k, s, norm, filter_norm)))
    return Reduced(
        parallel,
        orthogonal,
        jnp.sqrt(k) * first,
        s / jnp.sqrt(k) * first + across * second,
        jnp.where(across > 0, rest, jnp.hypot(rest, second)),
    )


@functools.partial(jax.jit, static_argnums=(5, 6, 7))  # once for all calls of a shape
def _learn(key, teacher, step_size, radius, epsilon, steps, restarts, halvings):
    def trials(key):
        start = initialize(key, teacher, radius)["params"]
        scales = 2.0 ** -jnp.arange(halvings + 1, dtype=start["output"].dtype)
        halved = lambda scale: {"params": start | {"output": scale * start["output"]}}  # noqa: E731
        return jax.vmap(lambda scale: sign_trials(halved(scale)))(scales)

    run = descend(population_loss, optax.sgd(step_size), steps, every=steps)
    one = lambda variables: run(variables, teacher)  # noqa: E731
    starts = jax.vmap(trials)(jax.random.split(key, restarts))
    end = jax.vmap(jax.vmap(jax.vmap(one)))(starts)
    losses = end.history["loss"][..., -1]
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    variables = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1])[best], end.params)
    scale = jnp.sum(teacher.filter**2) * jnp.sum(teacher.output**2)
    return Learned(variables, losses.reshape(-1)[best], losses, losses <= epsilon * scale)


def _radius(k: Any, s: Any, filter_norm: Any) -> jax.Array:
    """|1ᵀa*|‖w*‖/√k of Theorem 5.4."""
    return jnp.abs(s) * filter_norm / jnp.sqrt(k)


def _signed(leaf: jax.Array, signs: np.ndarray) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return jnp.asarray(signs, leaf.dtype).reshape(-1, *[1] * leaf.ndim) * leaf[None]


def _two_of_sphere(
    height: jax.Array, turn: jax.Array, dimension: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Two coordinates of a uniform point on the unit sphere, and the length of the others."""
    others = dimension - 2
    power = jnp.where(others > 0, jnp.log(height) / jnp.maximum(others, 1), -jnp.inf)
    length = jnp.sqrt(-jnp.expm1(2 * power))
    angle = 2 * np.pi * turn
    return length * jnp.cos(angle), length * jnp.sin(angle), jnp.exp(power)
