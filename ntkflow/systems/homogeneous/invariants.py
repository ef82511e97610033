"""What gradient flow preserves: what comes into a neuron minus what leaves it, and sums of that.

The quadratic forms of Theorems 4.1 to 4.3 of Du (2019), and the identity behind all of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.systems.homogeneous.layers import Layer, find_layers


class Balance(NamedTuple):
    """A quantity of each hidden layer h = 1, …, H − 1: as a whole, by neuron, and as a matrix.

    Attributes:
      layer: shape (H − 1,).
      neuron: per hidden layer shape (n_h,), by channel where the layer is a convolution; None
        beside a layer of shared weights, whose neurons are not balanced one by one.
      matrix: shape (n_h, n_h), of those hidden layers that were asked for.
    """

    layer: jax.Array
    neuron: tuple[jax.Array | None, ...]
    matrix: tuple[jax.Array, ...]


class Sides(NamedTuple):
    """The two sides of each hidden layer: what belongs to its incoming and outgoing weights."""

    incoming: Balance
    outgoing: Balance


def imbalance(
    params: Any, layers: Sequence[str] | None = None, linear: Sequence[int] = ()
) -> Balance:
    """Compute what gradient flow preserves in a network with homogeneous activations.

    - layer: ‖W_h‖_F² − ‖W_{h+1}‖_F² (Corollary 4.1); ‖v_h‖² − ‖v_{h+1}‖² (Theorem 4.3).
    - neuron: ‖W_h[i, :]‖² − ‖W_{h+1}[:, i]‖² (Theorem 4.1).
    - matrix: W_h W_hᵀ − W_{h+1}ᵀ W_{h+1} (Theorem 4.2), if σ_h(x) = x.

    W is (outputs, inputs) as in the thesis, the transpose of a Flax kernel. The network is any
    chain of Flax layers, dense or convolutional, with homogeneous functions between them:
    pooling is one, too. Three extensions, derived from the same symmetry, which multiplies what
    enters a neuron by c and what leaves it by 1/c:

    - Biases. The theorems are about networks without; a bias is a weight from a constant input,
      ‖W_h[i, :]‖² + b_h[i]² − ‖W_{h+1}[:, i]‖², and likewise in the other two forms. It counts on
      the incoming side alone.
    - Channels of convolutions take the place of neurons, also in a dense layer after channels were
      flattened (channels last), and also as matrices.
    - Constant factors in the forward pass, as in the NTK parameterization, change nothing.

    Args:
      params: a Flax model's variables or parameters.
      layers: the chain, paths of modules or kernels from the input to the output, e.g.
        ["encoder", "decoder"]; None finds modules whose names differ in numbers alone.
      linear: hidden layers h, counted from 1, whose activation is the identity.

    Raises:
      ValueError: layers that are not found or do not fit each other, an h that is no hidden
        layer or has shared weights.

    Example:
      >>> params = {"layer_1": {"kernel": jnp.array([[1.0, 2.0]])},
      ...           "layer_2": {"kernel": jnp.array([[3.0], [1.0]])}}
      >>> balance = imbalance(params, linear=[1])
      >>> balance.layer.tolist(), balance.neuron[0].tolist(), balance.matrix[0].tolist()
      ([-5.0], [-8.0, 3.0], [[-8.0, -1.0], [-1.0, 3.0]])

    Reference: Du (2019), Theorems 4.1, 4.2 and 4.3, Corollary 4.1.
    """
    sides = products(params, params, layers, linear)
    return jax.tree.map(jnp.subtract, sides.incoming, sides.outgoing)


def products(
    params: Any, other: Any, layers: Sequence[str] | None = None, linear: Sequence[int] = ()
) -> Sides:
    """Compute inner products with a second tree, a gradient say, on either side of each layer.

    - layer: ⟨W_h, G_h⟩ and ⟨W_{h+1}, G_{h+1}⟩.
    - neuron: W_h[i, :]·G_h[i, :] and W_{h+1}[:, i]·G_{h+1}[:, i].
    - matrix: G_h W_hᵀ and W_{h+1}ᵀ G_{h+1}.

    With G = ∇L, at any point and for any loss, both sides are equal: it is this identity,
    (4.10) = (4.11), that makes `imbalance` constant, since dW/dt = −G. It fails where an
    activation is not homogeneous (the matrix form: not linear), or a layer is missing.

    Args:
      params: a Flax model's variables or parameters.
      other: a tree of the same structure.
      layers, linear: as for `imbalance`.

    Raises:
      ValueError: as `imbalance`, and where the trees differ in shape.

    Example:
      >>> params = {"layer_1": {"kernel": jnp.array([[1.0, 2.0]])},
      ...           "layer_2": {"kernel": jnp.array([[3.0], [1.0]])}}
      >>> def f(params):
      ...     hidden = jax.nn.relu(2.0 * params["layer_1"]["kernel"])
      ...     return (hidden @ params["layer_2"]["kernel"])[0, 0]
      >>> sides = products(params, jax.grad(f)(params))
      >>> sides.incoming.neuron[0].tolist(), sides.outgoing.neuron[0].tolist()
      ([6.0, 4.0], [6.0, 4.0])

    Reference: Du (2019), equations (4.10) and (4.11).
    """
    first, second = find_layers(params, layers), find_layers(other, layers)
    shapes = [[layer.kernel.shape for layer in each] for each in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The layers of params have shapes {shapes[0]}, those of other {shapes[1]}; expected "
            "the same."
        )
    if not isinstance(linear, Sequence):
        raise ValueError(f"linear is {linear!r}; expected a sequence of hidden layers, e.g. [1].")
    hidden = range(1, len(first))
    sides = [_sides(first[h - 1 : h + 1], second[h - 1 : h + 1]) for h in hidden]
    asked = []
    for h in linear:
        if not isinstance(h, int | np.integer) or h not in hidden:
            raise ValueError(f"linear holds {h}; expected hidden layers, 1 to {len(first) - 1}.")
        pair = sides[h - 1]
        if pair is None:
            raise ValueError(
                f"linear holds {h}; the matrix of a hidden layer beside shared weights is not "
                "preserved: Theorem 4.3 is about norms of whole layers."
            )
        asked.append(pair)

    def balance(side: int) -> Balance:
        incoming = side == 0
        layer = [_inner(first[h - 1 + side], second[h - 1 + side], incoming) for h in hidden]
        neuron = tuple(None if pair is None else _by_neuron(*pair[side]) for pair in sides)
        matrix = tuple(_as_matrix(pair[side], incoming) for pair in asked)
        return Balance(jnp.stack(layer), neuron, matrix)

    return Sides(balance(0), balance(1))


def squared_norms(params: Any, layers: Sequence[str] | None = None) -> jax.Array:
    """Compute ‖W_h‖_F², or ‖v_h‖² of shared weights, of all layers: shape (H,), without biases.

    Example:
      >>> kernels = jnp.ones((2, 3)), jnp.ones((3, 1))
      >>> params = {f"layer_{h}": {"kernel": kernel} for h, kernel in enumerate(kernels)}
      >>> squared_norms(params).tolist()
      [6.0, 3.0]
    """
    return jnp.stack([jnp.sum(jnp.square(layer.kernel)) for layer in find_layers(params, layers)])


Pair = tuple[jax.Array, jax.Array]


def _sides(first: list[Layer], second: list[Layer]) -> tuple[Pair, Pair] | None:
    """Incoming and outgoing weights of both trees, each (n_h, fan); None beside shared weights."""
    before, after = first
    if before.shared or after.shared:
        return None
    outputs = _check(before, after)
    incoming = [layers[0].incoming().T for layers in (first, second)]
    outgoing = [layers[1].outgoing(outputs) for layers in (first, second)]
    return (incoming[0], incoming[1]), (outgoing[0], outgoing[1])


def _check(before: Layer, after: Layer) -> int:
    """The number of neurons, or channels, between two layers that fit each other."""
    if before.kernel.ndim < 2:
        raise ValueError(
            f"{before.name} has shape {before.kernel.shape}; expected (inputs, outputs) of a layer "
            "that another follows."
        )
    if not after.kernel.ndim:
        raise ValueError(f"{after.name} is a scalar; expected (inputs, outputs), or (inputs,).")
    outputs = before.kernel.shape[-1]
    inputs = after.kernel.shape[-2] if after.kernel.ndim > 1 else after.kernel.shape[0]
    flattened = before.kernel.ndim > 2 and after.kernel.ndim <= 2 and inputs % outputs == 0
    if inputs != outputs and not flattened:
        raise ValueError(
            f"{before.name} has {outputs} outputs and {after.name}, the next of the chain, takes "
            f"{inputs} inputs; expected the same. Give layers from the input to the output."
        )
    return outputs


def _inner(first: Layer, second: Layer, bias: bool) -> jax.Array:
    total = jnp.sum(first.kernel * second.kernel)
    if bias and first.bias is not None and second.bias is not None:
        total += jnp.sum(first.bias * second.bias)
    return total


def _by_neuron(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(a * b, axis=1)


def _as_matrix(pair: Pair, incoming: bool) -> jax.Array:
    a, b = pair[::-1] if incoming else pair
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
