"""A network and its linearization trained side by side: the gap of lazy training, measured.

Song et al. (2021), section 6, linearize h itself, a linear function without a minimum; the theorem
that they rest on, of Chizat et al. (2019), linearizes the network, and so does `lazy_gap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.parameters import partition
from ntkflow.systems.composite.arguments import check, check_near_isometry, divide, real, source
from ntkflow.systems.composite.constants import Apply, LossBuilder, NearIsometry
from ntkflow.theory import Bound
from ntkflow.training.descent import descend
from ntkflow.training.linear import linearize
from ntkflow.training.observe import Snapshot


class LazyGap(NamedTuple):
    """How far a network and its linearization are apart while both are trained.

    Attributes:
      steps: of the records, shape (records,), as all that follow up to `movement`.
      loss: h(θ_i), of the network.
      linear_loss: h̃(θ̃_i), of the linearized network.
      gap: |h(θ_i) − h̃(θ̃_i)|.
      output_distance: ‖f(x; θ_i) − f_lin(x; θ̃_i)‖ over all samples and outputs.
      parameter_distance: ‖θ_i − θ̃_i‖.
      movement: ‖θ_i − θ₀‖.
      variables: θ at the end, with all collections of the network.
      linear_variables: θ̃ at the end, for `ntkflow.linearize(apply, initial_variables)`.
    """

    steps: jax.Array
    loss: jax.Array
    linear_loss: jax.Array
    gap: jax.Array
    output_distance: jax.Array
    parameter_distance: jax.Array
    movement: jax.Array
    variables: Any
    linear_variables: Any


def lazy_gap(
    apply: Apply,
    loss: LossBuilder,
    learning_rate: ArrayLike | Callable[[Any], Any],
    steps: int,
    *,
    every: int = 1,
) -> Callable[[Any, Any], LazyGap]:
    """Build a run that trains a network and its linearization at θ₀ in lock step.

    θ_{i+1} = θ_i − η ∇h(θ_i) and θ̃_{i+1} = θ̃_i − η ∇h̃(θ̃_i), both from θ₀ and on the full batch,
    with h̃ the same loss of f_lin(θ) = f(θ₀) + ∇f(θ₀)(θ − θ₀). Training is lazy where the two stay
    together. The run is pure: jit it once, map it over seeds.

    Args:
      apply: the network, `apply(variables, x)`.
      loss: a builder, `loss(apply) -> (variables, data) -> scalar`: `ntkflow.squared_loss`, or
        `functools.partial(ntkflow.squared_loss, reduction="sum")` for the paper's.
      learning_rate: η, which may be traced, or an optax schedule.
      steps: number of steps.
      every: steps between records; each evaluates both networks once more.

    Returns:
      `run(variables, (x, y)) -> LazyGap`. The network's run is that of `descend`, the other one
      that of `descend` on `ntkflow.linearize(apply, variables)`.

    Raises:
      ValueError: `apply` is no function, `learning_rate` negative, `steps` or `every` not positive;
        and from the run: what `descend` refuses.

    Example:
      >>> from ntkflow.training.losses import squared_loss
      >>> run = lazy_gap(lambda w, x: x * w**2, squared_loss, learning_rate=0.1, steps=2)
      >>> result = jax.jit(run)(jnp.array(1.0), (jnp.array([1.0]), jnp.array([2.0])))
      >>> [[round(float(value), 4) for value in row] for row in (result.loss, result.linear_loss)]
      [[0.5, 0.1568, 0.0241], [0.5, 0.18, 0.0648]]

    References:
      Song et al. (2021), section 6 and appendix F; Chizat, Oyallon and Bach (2019), "On lazy
      training in differentiable programming", Theorem 2.3.
    """
    checks.network(apply)
    if not callable(loss):
        raise ValueError(
            f"loss is of type {type(loss).__name__}; expected a builder that takes a network's "
            "apply, e.g. ntkflow.squared_loss."
        )
    if not callable(learning_rate):
        check(learning_rate=learning_rate)
        checks.finite("learning_rate", learning_rate)
    steps, every = checks.positive_int("steps", steps), checks.positive_int("every", every)

    def run(variables: Any, data: Any) -> LazyGap:
        initial, merge = partition(variables)
        linear = linearize(apply, variables)
        of_network, of_linear = loss(apply), loss(linear)
        if not callable(of_network):
            raise ValueError(
                "loss(apply) is no function; expected a builder, e.g. ntkflow.squared_loss, which "
                "returns loss(variables, data), and not that loss itself."
            )

        def both(pair, data):
            # Each gradient sees its own parameters alone: the sum trains them independently.
            return of_network(merge(pair["network"]), data) + of_linear(merge(pair["linear"]), data)

        def outputs_apart(snapshot: Snapshot) -> jax.Array:
            x = snapshot.data[0]
            network = apply(merge(snapshot.params["network"]), x)
            return jnp.linalg.norm(jnp.ravel(network - linear(merge(snapshot.params["linear"]), x)))

        observe = {
            "network": lambda s: of_network(merge(s.params["network"]), s.data),
            "linear": lambda s: of_linear(merge(s.params["linear"]), s.data),
            "output_distance": outputs_apart,
            "parameter_distance": lambda s: _distance(s.params["network"], s.params["linear"]),
            "movement": lambda s: _distance(s.params["network"], initial),
        }
        descent = descend(both, optax.sgd(learning_rate), steps, observe=observe, every=every)
        trajectory = descent({"network": initial, "linear": initial}, data)
        history = trajectory.history
        return LazyGap(
            steps=trajectory.steps,
            loss=history["network"],
            linear_loss=history["linear"],
            gap=jnp.abs(history["network"] - history["linear"]),
            output_distance=history["output_distance"],
            parameter_distance=history["parameter_distance"],
            movement=history["movement"],
            variables=merge(trajectory.params["network"]),
            linear_variables=merge(trajectory.params["linear"]),
        )

    return run


def lazy_ratio(near: NearIsometry, residual: ArrayLike = 1.0, constant: ArrayLike = 1.0) -> Bound:
    """The order of the gap of lazy training over h(w₀), C ‖Φ(w₀) − y‖ β_Φ / ν².

    Small where training is lazy. With the residual 1 it is (82), which has no such factor: twice
    the outputs and the labels make four times the gap, and half of (82). Chizat et al. (2019) have
    the factor; with it the number is free of units, as the gap over h(w₀) is.

    ν stands for Lip(Φ), in the denominator: give σ_max(∇Φ*(w₀)) itself, of `measure_near_isometry`.
    An upper bound of it, as Lemma 3's ν_Φ is, makes an estimate and no upper bound.

    Args:
      near: ν, β_Φ of the network.
      residual: ‖Φ(w₀) − y‖, over all samples and outputs.
      constant: C, which the paper leaves open.

    Example:
      >>> float(lazy_ratio(NearIsometry(0.5, 2.0, 5.0), residual=0.4).value)
      0.5

    References:
      Song et al. (2021), (82); Chizat, Oyallon and Bach (2019), section 1.
    """
    check_near_isometry(*near)
    check(residual=residual, constant=constant)
    value = constant * divide(real(near.smoothness) * residual, real(near.nu) ** 2)
    place = source("appendix F, (82)", "with the residual, which is printed without")
    return Bound(value, "C ‖Φ(w₀) − y‖ β_Φ / ν²", constant, place)


def _distance(first: Any, second: Any) -> jax.Array:
    return optax.tree.norm(jax.tree.map(jnp.subtract, first, second))
