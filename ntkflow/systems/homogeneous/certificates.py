"""Runs of homogeneous networks held against Theorems 4.1 to 4.3 of Du (2019), and their drift."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.systems.homogeneous.invariants import Balance, imbalance, squared_norms
from ntkflow.systems.homogeneous.observables import Sizes, drift, sizes
from ntkflow.systems.records import check_history
from ntkflow.theory import Certificate, Inequality, inequality
from ntkflow.training.observe import Trajectory

_ROUNDING = 64  # units in the last place, of a sum over weights


def certificate_gradient_flow(
    history: Mapping[str, Any], *, tolerance: float | None = None
) -> Certificate:
    """Hold a gradient flow against Theorems 4.1 to 4.3: nothing of the balance changes.

    The hypothesis, that the network is homogeneous, is checked by what follows from it at every
    point: ⟨W_h, ∇_h L⟩ is the same in neighbouring layers. The claims are equalities, up to the
    error of the solver.

    Args:
      history: what `observables(loss, layers, linear)` recorded, from time 0 on, with or without
        a leading axis of seeds.
      tolerance: τ, relative to the largest ‖W_h‖_F² along the run; None is 1e-6 for records in
        float64 and 1e-3 in float32, ten times the tolerance of a step of `gradient_flow`.

    Returns:
      The certificate: with seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: no history, a record is missing, or there is one record alone.

    Example:
      >>> from ntkflow.systems.homogeneous import HomogeneousNetwork, average_loss, observables
      >>> from ntkflow.training.flow import gradient_flow
      >>> network, x, y = HomogeneousNetwork((5, 4, 1)), jnp.eye(3), jnp.ones((3, 1))
      >>> loss = average_loss(network.apply)
      >>> run = gradient_flow(loss, times=[0.0, 1.0, 2.0], observe=observables(loss))
      >>> trajectory = jax.jit(lambda key: run(network.init(key, x), (x, y)))(jax.random.key(0))
      >>> certificate = certificate_gradient_flow(trajectory.history)
      >>> bool(certificate.applies), bool(certificate.holds), len(certificate.claims)
      (True, True, 3)

    Reference: Du (2019), Theorems 4.1, 4.2 and 4.3, Corollary 4.1.
    """
    check_history(history, ("squared_norms", "alignment_gap", "change"), "observables(loss)")
    norms, gap = (np.asarray(history[name]) for name in ("squared_norms", "alignment_gap"))
    changes = [np.asarray(size) for size in history["change"]]
    if norms.ndim < 2:
        raise ValueError(
            f"squared_norms has shape {norms.shape}; expected (records, layers), the whole history."
        )
    if tolerance is None:
        tolerance = 1e-6 if norms.dtype == np.float64 else 1e-3
    limit = tolerance * norms.max(axis=(-2, -1))[..., None]
    return Certificate(
        theorem="Du (2019), Theorems 4.1 to 4.3: gradient flow of a homogeneous network",
        hypotheses=tuple(
            inequality(
                f"⟨W_{h}, ∇_{h} L⟩ = ⟨W_{h + 1}, ∇_{h + 1} L⟩, up to rounding",
                "Du (2019), equations (4.10) and (4.11)",
                gap[..., h - 1],
                gap.dtype.type(_ROUNDING * float(jnp.finfo(gap.dtype).eps)),
            )
            for h in range(1, gap.shape[-1] + 1)
        ),
        claims=_claims(
            changes,
            limit.astype(norms.dtype),
            "D(t) − D(0)",
            "τ max ‖W‖_F²",
        ),
    )


def certificate_gradient_descent(
    trajectory: Trajectory,
    layers: Sequence[str] | None = None,
    linear: Sequence[int] = (),
    *,
    tolerance: float | None = None,
) -> Certificate:
    """Hold the end of a run of gradient descent against its exact drift.

    D(T) − D(0) = Σ_t D(η_t ∇L(t)), for each layer, each neuron and the matrices of linear ones;
    the sum is what `accumulate_drift` kept.

    Args:
      trajectory: of `descend` with `optax.chain(optax.sgd(step_size), accumulate_drift(layers,
        linear))`, alone or with a leading axis of seeds, also one that was continued.
      layers, linear: as they were given to `accumulate_drift`.
      tolerance: relative to the largest ‖W_h‖_F²; None is 4 √T ε with ε the rounding of the
        weights' dtype, which walks at random: 10 000 steps of a network of 1000-100-100-10
        neurons in float32 were off by 0.5 to 1.8 √T ε (`examples/du2019_balance.py`).

    Returns:
      The certificate, of one record: the last. With seeds, `margin` and `holds` have their axis.

    Raises:
      ValueError: no trajectory, the run kept no drift, or that of other layers.

    Example:
      >>> import optax
      >>> from ntkflow.systems.homogeneous import (
      ...     HomogeneousNetwork, accumulate_drift, average_loss
      ... )
      >>> from ntkflow.training.descent import descend
      >>> network, x, y = HomogeneousNetwork((5, 4, 1)), jnp.eye(3), jnp.ones((3, 1))
      >>> optimizer = optax.chain(optax.sgd(0.1), accumulate_drift())
      >>> run = descend(average_loss(network.apply), optimizer, steps=20, every=20)
      >>> trajectory = jax.jit(lambda key: run(network.init(key, x), (x, y)))(jax.random.key(0))
      >>> bool(certificate_gradient_descent(trajectory).holds)
      True

    Reference: derived from Du (2019), proof of Theorem 4.1.
    """
    if not isinstance(trajectory, Trajectory):
        raise ValueError(
            f"trajectory is of type {type(trajectory).__name__}; expected what a run returned."
        )
    total = drift(trajectory.state)
    names = tuple(layers) if isinstance(layers, list) else layers
    matrices = tuple(linear) if isinstance(linear, list) else linear
    found, scale = _errors(
        trajectory.state.initial_params, trajectory.params, total, names, matrices
    )
    dtype = scale.dtype
    if tolerance is None:
        tolerance = 4 * np.sqrt(np.asarray(trajectory.state.step)) * float(jnp.finfo(dtype).eps)
    limit = (tolerance * np.asarray(scale, float))[..., None]
    error = [np.asarray(size)[..., None, :] for size in found]  # one record
    return Certificate(
        theorem="derived from Du (2019), Theorem 4.1: gradient descent of a homogeneous network",
        hypotheses=(),
        claims=_claims(
            error, limit.astype(dtype), "D(T) − D(0) − Σ D(η ∇L)", "rounding of max ‖W‖_F²"
        ),
    )


@functools.partial(jax.jit, static_argnames=("layers", "linear"))
def _errors(
    initial: Any, final: Any, total: Balance, layers: Any, linear: Any
) -> tuple[Sizes, jax.Array]:
    """The sizes of D(T) − D(0) − `total` and the largest ‖W_h‖_F², of each seed."""

    def errors(initial: Any, final: Any, total: Balance) -> tuple[Sizes, jax.Array]:
        before, after = (imbalance(params, layers, linear) for params in (initial, final))
        if jax.tree.map(jnp.shape, before) != jax.tree.map(jnp.shape, total):
            raise ValueError(
                f"The run kept the drift of {total.layer.size} hidden layers and "
                f"{len(total.matrix)} linear ones, layers and linear here are of "
                f"{before.layer.size} and {len(before.matrix)}, or of others; expected those given "
                "to accumulate_drift."
            )
        error = jax.tree.map(lambda a, b, c: a - b - c, after, before, total)
        norms = [squared_norms(params, layers) for params in (initial, final)]
        return sizes(error), jnp.max(jnp.stack(norms))

    for _ in range(total.layer.ndim - 1):  # axes of seeds
        errors = jax.vmap(errors)
    return errors(initial, final, total)


def _claims(
    error: Sequence[np.ndarray], limit: np.ndarray, what: str, bound: str
) -> tuple[Inequality, ...]:
    """Each layer by itself, all neurons together, all matrices together; `error` as in `Sizes`."""
    layer, neuron, matrix = error
    layers = tuple(
        inequality(
            f"|{what}| ≤ {bound}, D = ‖W_{h}‖_F² − ‖W_{h + 1}‖_F²",
            "Du (2019), Corollary 4.1 and Theorem 4.3",
            layer[..., h - 1],
            limit,
        )
        for h in range(1, layer.shape[-1] + 1)
    )
    together = (
        (f"|{what}| ≤ {bound}, D = ‖W_h[i, :]‖² − ‖W_(h+1)[:, i]‖², all neurons", "4.1", neuron),
        (f"‖{what}‖_F ≤ {bound}, D = W_h W_hᵀ − W_(h+1)ᵀ W_(h+1)", "4.2", matrix),
    )
    return layers + tuple(
        inequality(statement, f"Du (2019), Theorem {place}", each.max(axis=-1), limit)
        for statement, place, each in together
        if each.shape[-1]  # none beside shared weights, none that are linear
    )
