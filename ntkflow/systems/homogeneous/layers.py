"""Which parameters of a Flax model are the layers of a chain, in order, and what is in them."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkflow.parameters import partition, selected_paths


class Layer(NamedTuple):
    """A layer's parameters.

    Attributes:
      name: path of the kernel, its parts joined by "/".
      kernel: (…, inputs, outputs) as Flax has them; (inputs,) of a layer with one output; (d,) of
        shared weights.
      bias: (outputs,), or None.
      shared: whether the kernel holds the free parameters of a `SharedDense`.
    """

    name: str
    kernel: jax.Array
    bias: jax.Array | None
    shared: bool

    def incoming(self) -> jax.Array:
        """What enters each output, shape (fan_in, outputs); a bias is a weight from a constant."""
        matrix = jnp.reshape(self.kernel, (-1, self.kernel.shape[-1]))
        return matrix if self.bias is None else jnp.concatenate([matrix, self.bias[None, :]])

    def outgoing(self, outputs: int) -> jax.Array:
        """What leaves each of the previous layer's outputs, shape (outputs, fan_out).

        Channels that were flattened after a convolution, channels last, enter a dense layer in
        blocks, one per position.
        """
        kernel = self.kernel[:, None] if self.kernel.ndim == 1 else self.kernel
        taps = jnp.reshape(kernel, (-1, outputs, kernel.shape[-1]))
        return jnp.reshape(jnp.moveaxis(taps, 1, 0), (outputs, -1))


def layer_names(params: Any) -> tuple[str, ...]:
    """Find the layers of a chain by their names, "…_0", "…_1", …, "…_10", in natural order.

    Args:
      params: of a Flax model whose parameters are kernels and biases alone, in modules whose
        names differ in numbers alone, as those of `flax.linen.Sequential` do.

    Returns:
      The paths of the kernels, without Flax's leading collection name.

    Raises:
      ValueError: any other model: its order must be given.

    Example:
      >>> import flax.linen as nn
      >>> module = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
      >>> layer_names(jax.eval_shape(module.init, jax.random.key(0), jnp.ones((1, 3))))
      ('layers_0/kernel', 'layers_2/kernel')
    """
    paths = ["/".join(path) for path in _leaves(params)]
    kernels = [path for path in paths if path.split("/")[-1] in ("kernel", "shared")]
    modules = {path.rpartition("/")[0] for path in kernels}
    others = [
        path
        for path in paths
        if path not in kernels and path not in {f"{module}/bias" for module in modules}
    ]
    patterns = {re.sub(r"\d+", "#", module) for module in modules}
    if others or len(patterns) != 1:
        raise ValueError(
            f"The order of the layers is not clear from the parameters {sorted(paths)}; expected "
            "kernels and biases of modules whose names differ in numbers alone. Give the order: "
            'layers=["encoder", "decoder"], say, from the input to the output.'
        )
    return tuple(sorted(kernels, key=lambda path: [int(n) for n in re.findall(r"\d+", path)]))


def find_layers(params: Any, layers: Sequence[str] | None = None) -> list[Layer]:
    """The layers of a chain, from the input to the output.

    Args:
      params: a Flax model's variables or parameters, or a gradient of the same structure.
      layers: paths of modules or of their kernels, "encoder" or "encoder/kernel"; None finds them.

    Raises:
      ValueError: no such parameter, one twice, fewer than two.
    """
    leaves = {"/".join(path): leaf for path, leaf in _leaves(params).items()}
    names = layer_names(params) if layers is None else layers
    proper = isinstance(names, Sequence) and not isinstance(names, str)
    if not proper or len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            f"layers is {names!r}; expected two or more different layers, from the input to the "
            "output: balance is between one layer and the next."
        )
    found = []
    for name in names:
        places = [place for place in (name, f"{name}/kernel", f"{name}/shared") if place in leaves]
        if not places:
            raise ValueError(
                f"There is no layer {name!r}; the parameters are {sorted(leaves)}. A layer is a "
                "module with a kernel, or the path of the kernel itself."
            )
        module, _, leaf = places[0].rpartition("/")
        bias = leaves.get(f"{module}/bias" if module else "bias") if leaf == "kernel" else None
        found.append(Layer(places[0], leaves[places[0]], bias, leaf == "shared"))
    return found


def _leaves(params: Any) -> dict[tuple[str, ...], jax.Array]:
    selected, _ = partition(params)
    return dict(zip(selected_paths(selected), jax.tree.leaves(selected), strict=True))
