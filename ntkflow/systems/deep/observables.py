"""What to observe along a run of a deep network on the loss ½ Σ_i (f(x_i) − y_i)².

Each observer is a function of a snapshot whose data are (x, y), for `descend` and `gradient_flow`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow.kernels.empirical import empirical_ntk
from ntkflow.kernels.spectrum import smallest_eigenvalue
from ntkflow.systems.deep.gram import last_layer_gram
from ntkflow.systems.deep.networks import hidden
from ntkflow.training.losses import squared_loss
from ntkflow.training.observe import Observer

_NODES, _WEIGHTS = (half / 2 for half in np.polynomial.legendre.leggauss(8))
_SHARES = np.append(0.0, 0.5 + _NODES)  # of a step: its start, and the nodes on [0, 1]


class Step(NamedTuple):
    """One step of gradient descent, u(k+1) − u(k) = I_1 + I_2.

    Attributes:
      movement: ‖W^(h)(k+1) − W^(h)(k)‖_F for h = 1..H, and that of a: shape (H + 1,).
      linear: I_1 = −η G(k) (u(k) − y), shape (n,), by one derivative along the step.
      remainder: I_2, shape (n,), the rest of the change, by its integral along the step: 8 nodes
        of Gauss and Legendre. The difference u(k+1) − u(k) − I_1 would be lost to rounding at the
        step sizes of the theorems.
      squared_change: ‖u(k+1) − u(k)‖².
      squared_error: ‖u(k+1) − y‖², after the step.
    """

    movement: jax.Array
    linear: jax.Array
    remainder: jax.Array
    squared_change: jax.Array
    squared_error: jax.Array


def layer_norms(module: nn.Module, params: Any) -> jax.Array:
    """‖W^(1)‖_F, …, ‖W^(H)‖_F and ‖a‖ of a tree like the parameters', shape (H + 1,)."""
    leaves = params["params"]
    names = [*(f"layer_{h}" for h in range(1, module.depth + 1)), "output"]
    return jnp.stack([jnp.linalg.norm(jnp.ravel(leaves[name])) for name in names])


def one_step(module: nn.Module, params: Any, x: ArrayLike, y: ArrayLike, step_size: Any) -> Step:
    """Take a step θ − η ∇L(θ), and tell the linear part of its effect from the rest.

    Reference: Du (2019), (3.11) and the two equations after it.
    """
    apply: Any = module.apply
    gradient = jax.grad(squared_loss(apply))(params, (x, y))
    change = jax.tree.map(lambda leaf: -jnp.asarray(step_size, leaf.dtype) * leaf, gradient)

    def along(share):  # u at θ + share · change, and its derivative in the share
        moved = jax.tree.map(lambda leaf, by: leaf + share.astype(leaf.dtype) * by, params, change)
        return jax.jvp(lambda p: apply(p, x), (moved,), (change,))

    values, slopes = jax.lax.map(along, jnp.asarray(_SHARES))
    linear = slopes[0]
    weights = jnp.asarray(_WEIGHTS, linear.dtype)
    remainder = weights @ (slopes[1:] - linear[None])
    taken = linear + remainder
    return Step(
        movement=layer_norms(module, change),
        linear=linear,
        remainder=remainder,
        squared_change=jnp.sum(jnp.square(taken)),
        squared_error=jnp.sum(jnp.square(values[0] - jnp.asarray(y) + taken)),
    )


def observables(module: nn.Module, limit: ArrayLike | None = None) -> dict[str, Observer]:
    """What the theorems of Du (2019), chapter 3, speak of, by name.

    Those on Gram matrices decompose an (n, n) matrix at every record, and
    `gram_smallest_eigenvalue` of the full G takes a derivative per sample: choose fewer where n is
    large.

    Args:
      module: `FullyConnected`, `ResNet` or `ConvolutionalResNet`.
      limit: K^(H), shape (n, n): `ntkflow.systems.deep.limit(module, x).last`. None leaves
        `last_gram_error` out.

    Returns:
      Names → observers. squared_error: ‖u − y‖². last_gram_smallest_eigenvalue,
      gram_smallest_eigenvalue: λ_min of G^(H)(k) and of G(k). last_gram_change:
      ‖G^(H)(k) − G^(H)(0)‖. last_gram_error: ‖G^(H)(k) − K^(H)‖. movement: (3.6),
      ‖W^(h)(k) − W^(h)(0)‖_F / √m for h = 1..H, and that of a, shape (H + 1,). feature_movement:
      max_i ‖x_i^(h)(k) − x_i^(h)(0)‖, shape (H,). smallest_feature, largest_feature: of the
      ‖x_i^(h)‖ over samples, shape (H,). Matrix norms are spectral, those of weights and features
      of images Frobenius norms.

    Example:
      >>> from ntkflow.systems.deep.networks import ResNet
      >>> sorted(observables(ResNet(width=64, depth=3)))  # doctest: +NORMALIZE_WHITESPACE
      ['feature_movement', 'gram_smallest_eigenvalue', 'largest_feature', 'last_gram_change',
       'last_gram_smallest_eigenvalue', 'movement', 'smallest_feature', 'squared_error']
    """

    apply: Any = module.apply
    kernel = empirical_ntk(apply, method="structured")

    def last_gram(params, snapshot):
        return last_layer_gram(module, params, snapshot.data[0])

    def squared_error(snapshot):
        x, y = snapshot.data
        return jnp.sum(jnp.square(apply(snapshot.params, x) - jnp.asarray(y)))

    def last_gram_smallest_eigenvalue(snapshot):
        return smallest_eigenvalue(last_gram(snapshot.params, snapshot))

    def gram_smallest_eigenvalue(snapshot):
        return smallest_eigenvalue(kernel(snapshot.params, snapshot.data[0]))

    def last_gram_change(snapshot):
        initial = last_gram(snapshot.initial_params, snapshot)
        return _spectral_norm(last_gram(snapshot.params, snapshot) - initial)

    def last_gram_error(snapshot):
        return _spectral_norm(last_gram(snapshot.params, snapshot) - jnp.asarray(limit))

    def movement(snapshot):
        change = jax.tree.map(jnp.subtract, snapshot.params, snapshot.initial_params)
        norms = layer_norms(module, change)
        return norms / jnp.sqrt(jnp.asarray(module.width, norms.dtype))

    def feature_movement(snapshot):
        x, _ = snapshot.data
        initial = hidden(module, snapshot.initial_params, x)
        return jnp.max(_sample_norms(hidden(module, snapshot.params, x) - initial), axis=1)

    def smallest_feature(snapshot):
        return jnp.min(_sample_norms(hidden(module, snapshot.params, snapshot.data[0])), axis=1)

    def largest_feature(snapshot):
        return jnp.max(_sample_norms(hidden(module, snapshot.params, snapshot.data[0])), axis=1)

    chosen = [
        squared_error,
        last_gram_smallest_eigenvalue,
        gram_smallest_eigenvalue,
        last_gram_change,
        movement,
        feature_movement,
        smallest_feature,
        largest_feature,
    ]
    if limit is not None:
        chosen.append(last_gram_error)
    return {observer.__name__: observer for observer in chosen}


def step_observables(
    module: nn.Module, limit: ArrayLike, step_size: ArrayLike
) -> dict[str, Observer]:
    """`observables(module, limit)`, and `one_step`: a `Step` at each record.

    They are what `certificate_gradient_descent` reads.

    Args:
      module: `FullyConnected`, `ResNet` or `ConvolutionalResNet`.
      limit: K^(H), shape (n, n).
      step_size: η of the run, for the loss ½ Σ (f − y)².

    Example:
      >>> from ntkflow.systems.deep.networks import ResNet
      >>> module = ResNet(width=64, depth=3)
      >>> sorted(set(step_observables(module, jnp.eye(2), 0.1)) - set(observables(module)))
      ['last_gram_error', 'one_step']
    """

    def taken(snapshot):
        x, y = snapshot.data
        return one_step(module, snapshot.params, x, y, step_size)

    return observables(module, limit) | {"one_step": taken}


def _sample_norms(features: jax.Array) -> jax.Array:
    """‖x_i^(h)‖, of features (H, n, …): shape (H, n)."""
    return jnp.linalg.norm(features.reshape(*features.shape[:2], -1), axis=-1)


def _spectral_norm(symmetric: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(jnp.linalg.eigvalsh(symmetric)))
