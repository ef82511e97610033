"""What to observe along a run of Algorithm 1; the loss is recorded by `descend` itself."""

import jax
import jax.numpy as jnp

from ntkflow.systems.weight_normalized_filter.network import (
    Teacher,
    check_teacher,
    read,
    target_output,
)
from ntkflow.systems.weight_normalized_filter.population import angle
from ntkflow.training.observe import Observer, Snapshot


def observables(teacher: Teacher) -> dict[str, Observer]:
    """Build the observers of a run against a teacher, by name, each a scalar.

    - angle: φ = ∠(v, w*).
    - output_error: ‖a − ‖w*‖a*‖.
    - sum_error: |1ᵀa − 1ᵀa*‖w*‖|.
    - overlap: aᵀa*, whose sign decides where φ goes.
    - total: 1ᵀa.
    - filter_norm: ‖v‖.

    The first three and the loss are the four curves of Figure 5.2.

    Args:
      teacher: w* (p,) and a* (k,), whatever the data of the run are: the teacher itself with
        `population_loss`, or samples with `sampled_loss`.

    Returns:
      Names → observers.

    Raises:
      ValueError: the teacher is none, or one of its vectors is 0; and from the observers, shapes
        that differ.

    Example:
      >>> teacher = Teacher(jnp.array([2.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> start = {"params": {"filter": jnp.array([0.0, 3.0]), "output": jnp.array([1.0, 0.5])}}
      >>> snapshot = Snapshot(0, start, start, teacher)
      >>> {name: round(float(f(snapshot)), 4) for name, f in observables(teacher).items()}
      ... # doctest: +NORMALIZE_WHITESPACE
      {'angle': 1.5708, 'output_error': 2.6926, 'sum_error': 1.5, 'overlap': 0.5, 'total': 1.5,
       'filter_norm': 3.0}

    Reference: Du (2019), section 5.5.1.
    """
    teacher = check_teacher(teacher)
    target = target_output(teacher)

    def parameters(snapshot: Snapshot) -> tuple[jax.Array, jax.Array]:
        shared, output, _ = read(snapshot.params, teacher)
        return shared, output

    def overlap(snapshot: Snapshot) -> jax.Array:
        return jnp.sum(parameters(snapshot)[1] * teacher.output)

    def sum_error(snapshot: Snapshot) -> jax.Array:
        return jnp.abs(jnp.sum(parameters(snapshot)[1] - target))

    return {
        "angle": lambda snapshot: angle(parameters(snapshot)[0], teacher.filter),
        "output_error": lambda snapshot: jnp.linalg.norm(parameters(snapshot)[1] - target),
        "sum_error": sum_error,
        "overlap": overlap,
        "total": lambda snapshot: jnp.sum(parameters(snapshot)[1]),
        "filter_norm": lambda snapshot: jnp.linalg.norm(parameters(snapshot)[0]),
    }
