"""The Gram matrices G^(h) of the layers of deep networks, at any parameters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow.kernels.empirical import ntk_by_group
from ntkflow.kernels.quadrature import derivative
from ntkflow.systems.deep.networks import Variables, before_last, form_of, weights


def layer_grams(module: Any, variables: Variables, x: ArrayLike) -> dict[str, jax.Array]:
    """Compute G^(h)_ij = ⟨∂f(x_i)/∂W^(h), ∂f(x_j)/∂W^(h)⟩, the part of each layer in the kernel.

    Their sum over all layers, the output's included, is the empirical neural tangent kernel. It is
    compiled once for each module and shape of x.

    Args:
      module: one of the three networks.
      variables: as its `init` returns them, or after training.
      x: inputs, shape (n, d), or (n, p, d_0) of a `ConvolutionalResNet`.

    Returns:
      Positive semidefinite matrices of shape (n, n): "layer_1", …, "layer_H", and "output", which
      is G^(H+1).

    Raises:
      ValueError: the module is none of the three, or as for the module.

    Example:
      >>> from ntkflow.systems.deep.networks import FullyConnected
      >>> module, x = FullyConnected(width=16, depth=3), jnp.ones((4, 5))
      >>> variables = module.init(jax.random.key(0), x)
      >>> grams = layer_grams(module, variables, x)
      >>> list(grams), grams["layer_3"].shape
      (['layer_1', 'layer_2', 'layer_3', 'output'], (4, 4))

    Reference: Du (2019), section 3.3.
    """
    form = form_of(module)
    x = form.inputs(x)
    params = weights(form, variables, x)
    found = _layer_grams(module, params, x)
    return {name: found[name] for name in params}


@functools.partial(jax.jit, static_argnums=0)
def _layer_grams(module, params, x):
    return ntk_by_group(module.apply)({"params": params}, x)


def last_layer_gram(module: Any, variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute G^(H), of the last layer before the output, by its closed form.

    With s_i = a ∘ σ'(W^(H) x_i^(H−1)), of shape (m,),

        G^(H)_ij = scale² ⟨x_i^(H−1), x_j^(H−1)⟩ ⟨s_i, s_j⟩,

    where scale² is c_σ/m in a fully connected network, or for H = 1, and c_res²/(H²m) in a residual
    one. In the convolutional network x_il is the l-th patch of φ(x_i^(H−1)) and s_il its slopes
    times a_l, and the sum is over all pairs of pixels: Σ_lk ⟨x_il, x_jk⟩ ⟨s_il, s_jk⟩.

    No Jacobian is formed: memory O(n² + n m) and one pass over the layers; O(n² p + n p q m) in the
    convolutional network.

    Args:
      module, variables, x: as for `layer_grams`.

    Returns:
      Shape (n, n), exactly symmetric.

    Raises:
      ValueError: as for `layer_grams`.

    Example:
      >>> from ntkflow.systems.deep.networks import ResNet
      >>> module, x = ResNet(width=16, depth=3), jnp.eye(4, 5)
      >>> variables = module.init(jax.random.key(0), x)
      >>> closed = last_layer_gram(module, variables, x)
      >>> bool(jnp.allclose(closed, layer_grams(module, variables, x)["layer_3"]))
      True

    Reference: Du (2019), equations (3.12), (3.13) and (3.14).
    """
    form = form_of(module)
    x = form.inputs(x)
    params = weights(form, variables, x)
    before = before_last(form, params, x)
    last, output = params[f"layer_{form.depth}"], params["output"]
    slopes = output[None] * derivative(form.sigma)(form.preactivation(before, last))
    n, width = len(x), slopes.shape[-1]
    # Pixels in front: one of a network without any.
    slopes = jnp.moveaxis(slopes.reshape(n, -1, width), 1, 0)
    lifted = jnp.moveaxis(form.lift(before).reshape(n, len(slopes), -1), 1, 0)
    scale = form.first if form.depth == 1 else form.later
    return scale**2 * _sum_over_pixels(lifted, slopes)


@jax.jit
def _sum_over_pixels(lifted, slopes):
    """Σ_lk ⟨x_il, x_jk⟩ ⟨s_il, s_jk⟩, one l after another."""

    def pixel(total, own):
        inputs, factors = _product(lifted, own[0]), _product(slopes, own[1])
        return total + jnp.sum(inputs * factors, axis=0), None

    n = lifted.shape[1]
    zeros = jnp.zeros((n, n), jnp.result_type(lifted, slopes))
    total, _ = jax.lax.scan(pixel, zeros, (lifted, slopes))
    return (total + total.T) / 2


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """⟨a_ki, b_j⟩ for all pixels k of a and samples i, j, shape (p, n, n)."""
    return jnp.einsum("kic,jc->kij", a, b, precision=jax.lax.Precision.HIGHEST)
