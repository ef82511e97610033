"""What to observe along a run of the factorization; each observer is a function of a snapshot.

The parameters are {"u": ..., "v": ...} and the data M*, whatever the run's own loss: `objective`
is that of (4.1), also in a run on (4.3).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ntkflow.systems.matrix_factorization import problem
from ntkflow.systems.matrix_factorization.arguments import factors, read
from ntkflow.systems.matrix_factorization.landscape import hessian_form
from ntkflow.training.observe import Observer, Snapshot


def objective(snapshot: Snapshot) -> jax.Array:
    """f = ½ ‖UVᵀ − M*‖_F²."""
    return problem.objective(snapshot.params, snapshot.data)


def imbalance_norm(snapshot: Snapshot) -> jax.Array:
    """‖UᵀU − VᵀV‖_F."""
    return jnp.linalg.norm(problem.imbalance(snapshot.params))


def imbalance_change(snapshot: Snapshot) -> jax.Array:
    """‖(UᵀU − VᵀV)(t) − (UᵀU − VᵀV)(0)‖_F, 0 along a gradient flow on (4.1)."""
    now, then = (problem.imbalance(p) for p in (snapshot.params, snapshot.initial_params))
    return jnp.linalg.norm(now - then)


def u_norm(snapshot: Snapshot) -> jax.Array:
    """‖U‖_F."""
    return jnp.linalg.norm(factors(snapshot.params)[0])


def v_norm(snapshot: Snapshot) -> jax.Array:
    """‖V‖_F."""
    return jnp.linalg.norm(factors(snapshot.params)[1])


def product_norm(snapshot: Snapshot) -> jax.Array:
    """‖UVᵀ‖_F."""
    u, v = factors(snapshot.params)
    return jnp.linalg.norm(u @ v.T)


def gradient_norm(snapshot: Snapshot) -> jax.Array:
    """‖∇f‖_F, of (4.1)."""
    return optax.tree.norm(problem.gradient(snapshot.params, snapshot.data))


def target_norm(snapshot: Snapshot) -> jax.Array:
    """‖M*‖_F."""
    return jnp.linalg.norm(read(snapshot.params, snapshot.data).target)


def observables() -> dict[str, Observer]:
    """All observers of this module, by name.

    Example:
      >>> sorted(observables())  # doctest: +NORMALIZE_WHITESPACE
      ['gradient_norm', 'imbalance_change', 'imbalance_norm', 'objective', 'product_norm',
       'target_norm', 'u_norm', 'v_norm']
    """
    chosen = (
        objective,
        imbalance_norm,
        imbalance_change,
        u_norm,
        v_norm,
        product_norm,
        gradient_norm,
        target_norm,
    )
    return {observer.__name__: observer for observer in chosen}


def step_observables(schedule: Any) -> dict[str, Observer]:
    """`observables()`, and the quantities of one step of gradient descent on (4.1).

    They are what `certificate_gradient_descent` reads.

    Args:
      schedule: the run's step sizes, t ↦ η_t; a number is refused.

    Returns:
      Names → observers. Besides `observables()`: step_size (η_t), next_objective,
      next_imbalance_norm, next_norm (the larger of ‖U_{t+1}‖_F and ‖V_{t+1}‖_F), drift_error
      (‖D_{t+1} − D_t − η_t² (Vᵀ RᵀR V − Uᵀ RRᵀ U)‖_F, D = UᵀU − VᵀV) and step_curvature
      ([∇²f](∇f, ∇f) / ‖∇f‖², 0 where ∇f = 0).

    Raises:
      ValueError: the schedule is no function.

    Example:
      >>> len(step_observables(optax.constant_schedule(0.1))) - len(observables())
      6
    """
    if not callable(schedule):
        raise ValueError(
            f"schedule is {schedule!r}; expected a function of the step, e.g. "
            "optax.constant_schedule(0.1)."
        )

    def following(snapshot):
        return problem.gradient_step(snapshot.params, snapshot.data, schedule(snapshot.step))

    def drift_error(snapshot):
        params, target = snapshot.params, snapshot.data
        change = problem.imbalance(following(snapshot)) - problem.imbalance(params)
        exact = problem.imbalance_step(params, target, schedule(snapshot.step))
        return jnp.linalg.norm(change - exact)

    def next_norm(snapshot):
        after = following(snapshot)
        return jnp.maximum(jnp.linalg.norm(after["u"]), jnp.linalg.norm(after["v"]))

    def step_curvature(snapshot):
        slope = problem.gradient(snapshot.params, snapshot.data)
        squared = jnp.square(optax.tree.norm(slope))
        form = hessian_form(snapshot.params, slope, snapshot.data)
        return jnp.where(squared > 0, form / jnp.where(squared > 0, squared, 1), 0)

    return observables() | {
        "step_size": lambda snapshot: jnp.asarray(schedule(snapshot.step), float),
        "next_objective": lambda snapshot: problem.objective(following(snapshot), snapshot.data),
        "next_imbalance_norm": lambda snapshot: jnp.linalg.norm(
            problem.imbalance(following(snapshot))
        ),
        "next_norm": next_norm,
        "drift_error": drift_error,
        "step_curvature": step_curvature,
    }
