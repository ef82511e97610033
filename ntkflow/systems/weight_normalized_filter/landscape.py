"""Where Algorithm 1 can end: the global minimum, the spurious one, and saddles between them.

For a fixed angle the best output layer is a(φ) = (11ᵀ + (π−1)I)⁻¹(11ᵀ + (g(φ)−1)I)‖w*‖a*, and up
to a constant the loss is (1/4π)(a − a(φ))ᵀ(11ᵀ + (π−1)I)(a − a(φ)) plus a concave function of g.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow.systems.weight_normalized_filter.arguments import one_number
from ntkflow.systems.weight_normalized_filter.bounds_spurious import smallest_spurious_loss
from ntkflow.systems.weight_normalized_filter.network import (
    Teacher,
    Variables,
    check_teacher,
    read,
    target_output,
)
from ntkflow.systems.weight_normalized_filter.population import (
    angle,
    inverse_overlap,
    overlap_function,
)
from ntkflow.theory import Bound


class Conditions(NamedTuple):
    """What Theorem 5.3, or 5.5, asks of an initialization, booleans.

    Attributes:
      overlap: aᵀa* > 0, or < 0.
      total: |1ᵀa| ≤ |1ᵀa*|‖w*‖.
      angle: φ < π/2, or g(φ) ≤ 1 − 2(1ᵀa*)²/‖a*‖².
    """

    overlap: jax.Array
    total: jax.Array
    angle: jax.Array

    @property
    def all(self) -> jax.Array:
        """Whether all three hold."""
        return self.overlap & self.total & self.angle


def global_minimum(teacher: Teacher) -> dict[str, dict[str, jax.Array]]:
    """The global minimum v = w*, a = ‖w*‖a*, of loss 0; so is every positive multiple of v.

    Raises:
      ValueError: a vector of the teacher is 0.

    Example:
      >>> teacher = Teacher(jnp.array([2.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> global_minimum(teacher)["params"]["output"].tolist()
      [2.0, -2.0]

    Reference: Du (2019), Lemma 5.1.
    """
    teacher = check_teacher(teacher)
    return {"params": {"filter": teacher.filter, "output": target_output(teacher)}}


def spurious_minimum(teacher: Teacher) -> dict[str, dict[str, jax.Array]]:
    """The stationary point v = −w*, a = (11ᵀ + (π−1)I)⁻¹(11ᵀ − I)‖w*‖a*.

    A local minimum exactly where `has_spurious_minimum` says so, otherwise a saddle. Every
    positive multiple of v serves as well.

    Raises:
      ValueError: a vector of the teacher is 0.

    Example:
      >>> teacher = Teacher(jnp.array([2.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> spurious_minimum(teacher)["params"]["output"].round(2).tolist()
      [-0.93, 0.93]

    Reference: Du (2019), Theorem 5.5 and Lemma 5.1.
    """
    teacher = check_teacher(teacher)
    return {"params": {"filter": -teacher.filter, "output": output_at(0.0, teacher)}}


def spurious_loss(teacher: Teacher) -> Bound:
    """The loss at `spurious_minimum`, which Theorem 5.5 leaves as Ω(‖a*‖²).

    At 1ᵀa* = 0 it is 0.133264 ‖w*‖²‖a*‖², in general at least that, and less than ¼ ‖w*‖²‖a*‖²
    where the point is a local minimum and p > 1.

    Raises:
      ValueError: a vector of the teacher is 0.

    Example:
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0]) / jnp.sqrt(2.0))
      >>> round(float(spurious_loss(teacher).value), 6)
      0.133264

    Reference: Du (2019), Theorem 5.5.
    """
    teacher = check_teacher(teacher)
    shared, output = teacher
    norm, filter_norm = jnp.linalg.norm(output), jnp.linalg.norm(shared)
    return smallest_spurious_loss(norm, jnp.sum(output), output.size, filter_norm)


def has_spurious_minimum(teacher: Teacher) -> jax.Array:
    """Whether `spurious_minimum` is a local minimum: π (1ᵀa*)² < (k+π−1)‖a*‖².

    There aᵀa* = (π (1ᵀa*)²/(k+π−1) − ‖a*‖²)‖w*‖/(π−1). With δ = π − φ and g = δ³/3 + O(δ⁵) the loss
    rises by a positive definite form in a, and by −g aᵀa*‖w*‖/(2π): a minimum, strict in a and in
    the direction of v, if aᵀa* < 0. The Hessian does not show it, being 0 in v. If aᵀa* ≥ 0 there
    are points of smaller loss at every distance, and the "local minimum" of the text after Lemma
    5.1 is a saddle. With one patch it always is, unless p = 1, where the filter cannot turn.

    Raises:
      ValueError: a vector of the teacher is 0.

    Example:
      >>> balanced, constant = jnp.array([1.0, -1.0]), jnp.ones(2)
      >>> [bool(has_spurious_minimum(Teacher(jnp.ones(3), a))) for a in (balanced, constant)]
      [True, False]

    Reference: Du (2019), Lemma 5.1, sharpened.
    """
    teacher = check_teacher(teacher)
    if teacher.filter.size == 1:
        return jnp.asarray(True)
    return _has_saddle(teacher)


def best_output(phi: ArrayLike, teacher: Teacher) -> jax.Array:
    """The output layer of least loss at a given angle, a(φ), shape (k,).

    a(φ) = ((g(φ)−1) ‖w*‖a* + (π − g(φ)) ‖w*‖1ᵀa*/(k+π−1) 1)/(π−1); a(0) and a(π) are those of the
    two minima.

    Args:
      phi: φ in [0, π], a scalar.
      teacher: w* and a*.

    Raises:
      ValueError: φ is out of [0, π], or not one number.

    Example:
      >>> teacher = Teacher(jnp.array([2.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> best_output(0.0, teacher).round(6).tolist()
      [2.0, -2.0]

    Reference: Du (2019), Theorem 5.2, ∂ℓ/∂a = 0.
    """
    one_number(phi=phi)
    return output_at(overlap_function(phi), check_teacher(teacher))


def saddle_angle(teacher: Teacher) -> jax.Array:
    """The angle of the stationary points with aᵀa* = 0, which Lemma 5.1 leaves out.

    At g(φ) = (1 − πρ)/(1 − ρ), ρ = (1ᵀa*)²/((k+π−1)‖a*‖²), a(φ) is orthogonal to a*, and ∂ℓ/∂v = 0
    whatever the direction of v: saddles, between the two minima. π/2 at 1ᵀa* = 0.

    Returns:
      φ in [π/2, π); NaN without a spurious minimum, where there is none but in its place.

    Raises:
      ValueError: a vector of the teacher is 0.

    Example:
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> round(float(saddle_angle(teacher)), 6)
      1.570796

    Reference: Du (2019), Theorem 5.2, derived.
    """
    teacher = check_teacher(teacher)
    total, square = _sums(teacher)
    rho = total**2 / ((teacher.output.size + np.pi - 1) * square)
    between = _has_saddle(teacher)
    level = (1 - np.pi * rho) / jnp.where(between, 1 - rho, 1)
    return inverse_overlap(jnp.where(between, level, -1.0))


def in_basin(variables: Variables, teacher: Teacher, *, printed: bool = False) -> jax.Array:
    """Whether (v, a) is in B̃: vᵀw* ≥ 0, aᵀa* ≥ 0 and |1ᵀa| ≤ |1ᵀa*|‖w*‖.

    From there Algorithm 1 finds the global minimum with small steps, but for one case: with
    vᵀw* = aᵀa* = 1ᵀa* = 0 neither the angle nor aᵀa* ever changes. That case, which the printed set
    contains, is left out.

    Args:
      variables, teacher: as for `population_loss`.
      printed: the set of the text, with that case.

    Returns:
      A boolean.

    Raises:
      ValueError: as `population_loss`.

    Example:
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> start = {"params": {"filter": jnp.array([0.0, 1.0]), "output": jnp.zeros(2)}}
      >>> [bool(in_basin(start, teacher, printed=printed)) for printed in (True, False)]
      [True, False]

    Reference: Du (2019), section 5.1, "Technical Insights", corrected.
    """
    shared, output, teacher = read(variables, teacher)
    toward = jnp.sum(shared * teacher.filter)
    overlap, small = jnp.sum(output * teacher.output), _small_total(output, teacher)
    inside = (toward >= 0) & (overlap >= 0) & small
    if printed:
        return inside
    stuck = (toward == 0) & (overlap == 0) & (jnp.sum(teacher.output) == 0)
    return inside & ~stuck


def success_conditions(variables: Variables, teacher: Teacher) -> Conditions:
    """What Theorem 5.3 asks of an initialization: aᵀa* > 0, |1ᵀa| ≤ |1ᵀa*|‖w*‖, φ < π/2.

    Raises:
      ValueError: as `population_loss`.

    Example:
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0]))
      >>> start = {"params": {"filter": jnp.array([1.0, 1.0]), "output": jnp.array([0.5, -0.7])}}
      >>> [bool(holds) for holds in success_conditions(start, teacher)]
      [False, True, True]

    Reference: Du (2019), Theorem 5.3, whose |1ᵀa| ≤ |1ᵀa*| is for ‖w*‖ = 1.
    """
    shared, output, teacher = read(variables, teacher)
    return Conditions(
        overlap=jnp.sum(output * teacher.output) > 0,
        total=_small_total(output, teacher),
        angle=jnp.sum(shared * teacher.filter) > 0,
    )


def spurious_conditions(variables: Variables, teacher: Teacher) -> Conditions:
    """What Theorem 5.5 asks: aᵀa* < 0, |1ᵀa| ≤ |1ᵀa*|‖w*‖, g(φ) ≤ 1 − 2(1ᵀa*)²/‖a*‖².

    At 1ᵀa* = 0 its initialization is a = 0, of which the first condition is false, though one step
    from φ > π/2 makes it true.

    Raises:
      ValueError: as `population_loss`.

    Example:
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> start = {"params": {"filter": jnp.array([-1.0, 1.0]), "output": jnp.array([-0.5, 0.5])}}
      >>> bool(spurious_conditions(start, teacher).all)
      True

    Reference: Du (2019), Theorem 5.5; the text after it drops the 1.
    """
    shared, output, teacher = read(variables, teacher)
    total, square = _sums(teacher)
    level = overlap_function(angle(shared, teacher.filter))
    return Conditions(
        overlap=jnp.sum(output * teacher.output) < 0,
        total=_small_total(output, teacher),
        angle=level <= 1 - 2 * total**2 / square,
    )


def output_at(level: ArrayLike, teacher: Teacher) -> jax.Array:
    """a(φ) for g(φ) = level, of a teacher that was checked."""
    target = target_output(teacher)
    level = jnp.asarray(level, target.dtype)
    mean = jnp.sum(target) / (target.size + np.pi - 1)
    return ((level - 1) * target + (np.pi - level) * mean) / (np.pi - 1)


def _small_total(output: jax.Array, teacher: Teacher) -> jax.Array:
    return jnp.abs(jnp.sum(output)) <= jnp.abs(jnp.sum(target_output(teacher)))


def _sums(teacher: Teacher) -> tuple[jax.Array, jax.Array]:
    """1ᵀa* and ‖a*‖²."""
    return jnp.sum(teacher.output), jnp.sum(jnp.square(teacher.output))


def _has_saddle(teacher: Teacher) -> jax.Array:
    """Whether a(φ) is orthogonal to a* at some φ < π."""
    total, square = _sums(teacher)
    if teacher.output.size == 1:  # the two sides are equal, up to rounding
        return jnp.zeros_like(total, dtype=bool)
    return np.pi * total**2 < (teacher.output.size + np.pi - 1) * square
