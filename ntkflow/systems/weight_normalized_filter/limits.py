"""Lemma 5.1, where Algorithm 1 can end, with the distances that small gradients leave open."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.systems.weight_normalized_filter.arguments import source
from ntkflow.systems.weight_normalized_filter.bounds import level
from ntkflow.systems.weight_normalized_filter.landscape import output_at
from ntkflow.systems.weight_normalized_filter.network import (
    Teacher,
    Variables,
    read,
    target_output,
)
from ntkflow.systems.weight_normalized_filter.population import angle, population_gradients
from ntkflow.theory import Certificate, inequality


class Limit(NamedTuple):
    """What Lemma 5.1 speaks of at a point, all scalars.

    Attributes:
      angle: φ; supplement: π − φ, to full relative precision.
      overlap: aᵀa*‖w*‖.
      filter_gradient: ‖v‖‖∂ℓ/∂v‖, which does not depend on ‖v‖.
      output_gradient: ‖∂ℓ/∂a‖.
      global_distance: ‖a − ‖w*‖a*‖.
      spurious_distance: ‖a − a(π)‖.
      scale: ‖w*‖‖a*‖.
    """

    angle: jax.Array
    supplement: jax.Array
    overlap: jax.Array
    filter_gradient: jax.Array
    output_gradient: jax.Array
    global_distance: jax.Array
    spurious_distance: jax.Array
    scale: jax.Array


def limit(variables: Variables, teacher: Teacher) -> Limit:
    """What Lemma 5.1 speaks of at (v, a); a pure function, for observers and `vmap`.

    Raises:
      ValueError: as `population_loss`.

    Example:
      >>> from ntkflow.systems.weight_normalized_filter.landscape import spurious_minimum
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> point = limit(spurious_minimum(teacher), teacher)
      >>> round(float(point.supplement), 6), round(float(point.overlap), 6)
      (0.0, -0.933884)

    Reference: Du (2019), Lemma 5.1.
    """
    shared, output, teacher = read(variables, teacher)
    target, slopes = target_output(teacher), population_gradients(variables, teacher)["params"]
    return Limit(
        angle=angle(shared, teacher.filter),
        supplement=angle(shared, -teacher.filter),
        overlap=jnp.sum(output * target),
        filter_gradient=jnp.linalg.norm(shared) * jnp.linalg.norm(slopes["filter"]),
        output_gradient=jnp.linalg.norm(slopes["output"]),
        global_distance=jnp.linalg.norm(output - target),
        spurious_distance=jnp.linalg.norm(output - output_at(0.0, teacher)),
        scale=jnp.linalg.norm(target),
    )


def certificate_limit(point: Limit) -> Certificate:
    """Hold points, the last of runs or all along one, against Lemma 5.1, in terms of gradients.

    Where ∇ℓ = 0 and aᵀa* ≠ 0 the claims are the lemma's: (φ, a) is (0, a(0)) or (π, a(π)). Where
    the gradients are small they say how far from one of the two the point can be:

    - sin φ (π − φ) = 2π‖v‖‖∂ℓ/∂v‖/(|aᵀa*|‖w*‖), and the left side is at least φ up to π/2, and
      (2/π)(π − φ)² beyond.
    - ‖a − a(φ)‖ ≤ 2π‖∂ℓ/∂a‖/(π−1), and ‖a(φ) − a(φ')‖ ≤ |g(φ) − g(φ')|‖w*‖‖a*‖/(π−1).

    Args:
      point: what `limit` returned, of one point or mapped over points: the last axis is that of
        the points.

    Returns:
      The certificate. Claims are up to rounding, of 16 units in the last place of a scale of 1
      for angles and of ‖w*‖‖a*‖ for output layers.

    Raises:
      ValueError: `point` is no `Limit`.

    Example:
      >>> from ntkflow.systems.weight_normalized_filter.landscape import spurious_minimum
      >>> teacher = Teacher(jnp.array([1.0, 0.0]), jnp.array([1.0, -1.0]))
      >>> certificate = certificate_limit(limit(spurious_minimum(teacher), teacher))
      >>> bool(certificate.applies), bool(certificate.holds)
      (True, True)

    Reference: Du (2019), Lemma 5.1; the distances are derived.
    """
    if not isinstance(point, Limit):
        raise ValueError(
            f"point is of type {type(point).__name__}; expected a Limit: write "
            "limit(variables, teacher)."
        )
    host = jax.tree.map(np.asarray, point)
    dtype = host.angle.dtype
    rounding = 16 * np.finfo(dtype).eps
    near = host.angle <= np.pi / 2
    overlap = np.abs(host.overlap)
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = 2 * np.pi * host.filter_gradient / overlap
    moved = np.abs(level(host.angle) + 1 - np.pi * near) * host.scale
    moved = moved + 2 * np.pi * host.output_gradient
    place = source("Lemma 5.1", "distances derived")
    return Certificate(
        theorem=source("Lemma 5.1"),
        hypotheses=(
            inequality(
                "aᵀa* ≠ 0", source("Lemma 5.1"), rounding * host.scale**2, overlap, dtype=dtype
            ),
        ),
        claims=(
            inequality(
                "min{φ, (2/π)(π−φ)²} ≤ 2π‖v‖‖∂ℓ/∂v‖/(|aᵀa*|‖w*‖)",
                place,
                np.where(near, host.angle, 2 / np.pi * host.supplement**2),
                turn + rounding,
                dtype=dtype,
            ),
            inequality(
                "‖a − a(φ')‖ ≤ (2π‖∂ℓ/∂a‖ + |g(φ) − g(φ')|‖w*‖‖a*‖)/(π−1), φ' = 0 or π",
                place,
                np.where(near, host.global_distance, host.spurious_distance),
                moved / (np.pi - 1) + rounding * host.scale,
                dtype=dtype,
            ),
        ),
    )
