"""What to observe of the balance of layers along a run, and the drift that descent adds up."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ntkflow.parameters import partition
from ntkflow.systems.homogeneous.invariants import Balance, imbalance, products, squared_norms
from ntkflow.training.observe import Loss, Observer, Snapshot, check_loss


def observables(
    loss: Loss, layers: Sequence[str] | None = None, linear: Sequence[int] = ()
) -> dict[str, Observer]:
    """Build the observers that `certificate_gradient_flow` reads.

    Args:
      loss: of the run; its gradient is taken once per record.
      layers, linear: as for `imbalance`.

    Returns:
      Names → observers:
      - squared_norms: ‖W_h‖_F², shape (H,).
      - change: of D since the start, by the names of `Sizes`: |·| for D_h = ‖W_h‖_F² −
        ‖W_{h+1}‖_F², shape (H − 1,); the largest over neurons for ‖W_h[i, :]‖² −
        ‖W_{h+1}[:, i]‖², one number per hidden layer not beside shared weights; the Frobenius norm
        for W_h W_hᵀ − W_{h+1}ᵀ W_{h+1}, one per hidden layer in `linear`.
      - alignment_gap: |⟨W_h, ∇_h L⟩ − ⟨W_{h+1}, ∇_{h+1} L⟩|, relative to the product of norms
        ‖W_h‖ ‖∇_h L‖ + ‖W_{h+1}‖ ‖∇_{h+1} L‖, shape (H − 1,): rounding, where the network is
        homogeneous.

    Example:
      >>> params = {"layer_0": {"kernel": jnp.array([[1.0, 2.0]])},
      ...           "layer_1": {"kernel": jnp.array([[3.0], [1.0]])}}
      >>> def loss(params, x):
      ...     hidden = jax.nn.relu(x * params["layer_0"]["kernel"])
      ...     return (hidden @ params["layer_1"]["kernel"])[0, 0]
      >>> snapshot = Snapshot(0, params, params, jnp.array(2.0))
      >>> observe = observables(loss)
      >>> observe["change"](snapshot).layer.tolist(), observe["change"](snapshot).neuron.tolist()
      ([0.0], [0.0])
      >>> {name: observe[name](snapshot).tolist() for name in ("squared_norms", "alignment_gap")}
      {'squared_norms': [5.0, 10.0], 'alignment_gap': [0.0]}
    """
    check_loss(loss, "observables")

    def change(snapshot: Snapshot) -> Sizes:
        now, start = (
            imbalance(params, layers, linear)
            for params in (snapshot.params, snapshot.initial_params)
        )
        return sizes(jax.tree.map(jnp.subtract, now, start))

    def gap(snapshot: Snapshot) -> jax.Array:
        gradient = _gradient(loss, snapshot.params, snapshot.data)
        weights, slope, both = (
            products(*pair, layers)
            for pair in (
                (snapshot.params, snapshot.params),
                (gradient, gradient),
                (snapshot.params, gradient),
            )
        )
        scale = sum(jnp.sqrt(w.layer * g.layer) for w, g in zip(weights, slope, strict=True))
        difference = jnp.abs(both.incoming.layer - both.outgoing.layer)
        return jnp.where(difference == 0, 0.0, difference / scale)

    return {
        "squared_norms": lambda snapshot: squared_norms(snapshot.params, layers),
        "change": change,
        "alignment_gap": gap,
    }


class DriftState(NamedTuple):
    """The state of `accumulate_drift`: the sum over the steps so far."""

    drift: Balance


def accumulate_drift(
    layers: Sequence[str] | None = None, linear: Sequence[int] = ()
) -> optax.GradientTransformation:
    """Build the last link of an optax chain: it adds up the drift that gradient descent causes.

    With D_h any of the forms of `imbalance`, a quadratic form of the weights, and a step
    W(t+1) = W(t) − η_t ∇L, the terms of first order in η cancel between incoming and outgoing
    weights, and what is left is exact:

        D_h(T) − D_h(0) = Σ_t D_h(η_t ∇L) = η² Σ_t (‖∇_h L‖² − ‖∇_{h+1} L‖²)

    for layers and constant η; by neuron η² Σ_t (‖∇_h L[i, :]‖² − ‖∇_{h+1} L[:, i]‖²), as matrices
    η² Σ_t (∇_h L ∇_h Lᵀ − ∇_{h+1} Lᵀ ∇_{h+1} L). Over a fixed time ηT this is O(η). It holds for
    any schedule of step sizes and for minibatches, step by step; not with momentum, whose steps
    do not go along the gradient.

    The sum is kept in the optimizer's state, at every step and whatever is recorded; the updates
    pass unchanged.

    Args:
      layers, linear: as for `imbalance`.

    Example:
      >>> from ntkflow.systems.homogeneous import HomogeneousNetwork, average_loss
      >>> from ntkflow.training.descent import descend
      >>> network, x, y = HomogeneousNetwork((5, 4, 1)), jnp.eye(3), jnp.ones((3, 1))
      >>> optimizer = optax.chain(optax.sgd(0.1), accumulate_drift())
      >>> run = descend(average_loss(network.apply), optimizer, steps=20, every=20)
      >>> trajectory = jax.jit(lambda key: run(network.init(key, x), (x, y)))(jax.random.key(0))
      >>> before, after = (
      ...     imbalance(params).layer
      ...     for params in (trajectory.state.initial_params, trajectory.params)
      ... )
      >>> bool(jnp.allclose(after - before, drift(trajectory.state).layer, rtol=0, atol=1e-13))
      True

    Reference: derived from Du (2019), proof of Theorem 4.1; (4.13) is that of two linear layers.
    """

    def init(params: Any) -> DriftState:
        zero = jax.eval_shape(lambda: imbalance(params, layers, linear))
        return DriftState(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), zero))

    def update(updates: Any, state: DriftState, params: Any = None) -> tuple[Any, DriftState]:
        del params
        step = imbalance(updates, layers, linear)
        return updates, DriftState(jax.tree.map(jnp.add, state.drift, step))

    return optax.GradientTransformation(init, update)


def drift(state: Any) -> Balance:
    """Read Σ_t D_h(η_t ∇L) from the state of a run, or of an optimizer, with `accumulate_drift`.

    Raises:
      ValueError: the optimizer had no such link, or several.
    """
    is_drift = lambda node: isinstance(node, DriftState)  # noqa: E731
    found = [node for node in jax.tree.leaves(state, is_leaf=is_drift) if is_drift(node)]
    if len(found) != 1:
        raise ValueError(
            f"The state holds {len(found)} sums of drift; expected one: run with "
            "optax.chain(optax.sgd(step_size), accumulate_drift())."
        )
    return found[0].drift


class Sizes(NamedTuple):
    """The size of a `Balance`: |·| by layer, the largest |·| of neurons, Frobenius of matrices."""

    layer: jax.Array
    neuron: jax.Array
    matrix: jax.Array


def sizes(balance: Balance) -> Sizes:
    """The sizes of all hidden layers, in that order; those without neurons are left out."""
    dtype = balance.layer.dtype
    neurons = [jnp.max(jnp.abs(each)) for each in balance.neuron if each is not None]
    matrices = [jnp.linalg.norm(each) for each in balance.matrix]
    return Sizes(jnp.abs(balance.layer), jnp.array(neurons, dtype), jnp.array(matrices, dtype))


def _gradient(loss: Loss, params: Any, data: Any) -> Any:
    selected, merge = partition(params)
    return jax.grad(lambda part: loss(merge(part), data))(selected)
