"""u = (1/√(md)) A φ(Wᵀx), with the loss ½ Σ_i ‖x_i − u_i‖², a sum over the samples.

The two-layer ReLU autoencoder of Nguyen, Wong and Hegde (2019a), and its gradients.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.layers import rademacher
from ntkflow.systems.autoencoder.arguments import Trains, check_trains

DecoderInit = Literal["rademacher", "gaussian"]
Variables = Mapping[str, Any]

_INITIALIZERS = {"rademacher": rademacher, "gaussian": nn.initializers.normal(1.0)}


class Autoencoder(nn.Module):
    """Two-layer ReLU autoencoder in the NTK parameterization, with as many outputs as inputs.

    u = (1/√(md)) A φ(Wᵀx) = (1/√(md)) Σ_r a_r φ(w_r·x), w_r ~ N(0, I), a_r uniform on {−1, 1}^d;
    φ(z) = max(z, 0), φ'(0) = 0, no bias. Data are (x, x), for x of shape (n, d) and rows of norm 1.

    What does not train lives in the variable collection "fixed", which training and kernels leave
    alone: `trains="encoder"` is the paper's weak training, `"both"` its joint training. One key
    draws the same weights for all three.

    Gradient flow can press a neuron onto a kink w_r·x_i = 0 from both sides and then slides along
    it, where a solver creeps: give `gradient_flow` rtol=1e-4, atol=1e-5. (m = 40, n = 4, d = 3,
    t = 20: some 100 solver steps; with the defaults more than 100 000.)

    Attributes:
      width: m, the number of hidden neurons.
      trains: "encoder", "decoder" or "both".
      decoder_init: "rademacher", or "gaussian" for a_r ~ N(0, I): the limits are the same, and
        ‖a_r‖² = d then holds in the mean (Remark 5.1).
      constant_input: the encoder sees (x, 1)/√2, of norm 1 where x has, which gives the hidden
        layer a bias: the last row of W (the paper has "column"). The target stays x.
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: the width is not positive, `trains` or `decoder_init` is unknown, x is not of
        shape (n, d), or not of the d that the weights were drawn for.

    Example:
      >>> module = Autoencoder(width=64, trains="encoder")
      >>> variables = module.init(jax.random.key(0), jnp.ones((1, 3)))
      >>> jax.tree.map(jnp.shape, variables)
      {'fixed': {'decoder': (3, 64)}, 'params': {'encoder': (3, 64)}}
      >>> module.apply(variables, jnp.ones((5, 3))).shape
      (5, 3)

    Reference: Nguyen, Wong and Hegde (2019a), "Benefits of Jointly Training Autoencoders: An
    Improved Neural Tangent Kernel Analysis", sections 2.1 and 3.2.
    """

    width: int
    trains: Trains = "both"
    decoder_init: DecoderInit = "rademacher"
    constant_input: bool = False
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        width = checks.positive_int("width", self.width)
        check_trains(self.trains)
        if self.decoder_init not in get_args(DecoderInit):
            raise ValueError(
                f"decoder_init is {self.decoder_init!r}; expected one of "
                f"{list(get_args(DecoderInit))}."
            )
        x = checks.matrix("x", x)
        dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)

        def leaf(name, init, shape):
            trained = self.trains in (name, "both")
            collection, other = ("params", "fixed") if trained else ("fixed", "params")
            if self.has_variable(other, name):
                raise ValueError(
                    f"The {name} is in the collection {other!r}; expected {collection!r}, as "
                    f"trains is {self.trains!r}: initialize with this module, or move the leaf."
                )
            if self.has_variable(collection, name):
                _check_rows(name, self.get_variable(collection, name), shape[0], x)
            if trained:
                return self.param(name, init, shape, dtype)
            draw = lambda: init(self.make_rng("params"), shape, dtype)  # noqa: E731
            return self.variable("fixed", name, draw).value

        features = x.shape[1]
        rows = features + 1 if self.constant_input else features
        encoder = leaf("encoder", nn.initializers.normal(1.0), (rows, width))
        decoder = leaf("decoder", _INITIALIZERS[self.decoder_init], (features, width))
        return _forward(encoder, decoder, x)


def weights(variables: Variables) -> tuple[jax.Array, jax.Array]:
    """The encoder W and the decoder A, shapes (d, m): column r is w_r, or a_r.

    With a constant input the encoder has d + 1 rows.
    """
    try:
        leaves = {**variables.get("fixed", {}), **variables.get("params", {})}
        return leaves["encoder"], leaves["decoder"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the variables of an Autoencoder, as its init returns them: 'encoder' and "
            f"'decoder' in the collections 'params' and 'fixed'; missing: {error}."
        ) from error


def trains_of(variables: Variables) -> Trains:
    """What trains, read off the collections.

    Example:
      >>> weights = {"encoder": jnp.ones((2, 3))}, {"decoder": jnp.ones((2, 3))}
      >>> trains_of({"params": weights[0], "fixed": weights[1]})
      'encoder'
    """
    weights(variables)
    params = variables.get("params", {})
    trained: list[Trains] = [name for name in ("encoder", "decoder") if name in params]
    if not trained:
        raise ValueError(
            "Neither 'encoder' nor 'decoder' is in the collection 'params'; expected the variables "
            "of an Autoencoder, which trains one of them or both."
        )
    return trained[0] if len(trained) == 1 else "both"


def append_constant(x: ArrayLike) -> jax.Array:
    """(x, 1)/√2, shape (n, d + 1): of norm 1 where x is, so that Assumption 1 still holds.

    Example:
      >>> jnp.linalg.norm(append_constant(jnp.array([[0.6, 0.8]]))).round(6).item()
      1.0
    """
    x = checks.matrix("x", x)
    return jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1) / math.sqrt(2)


def encoder_inputs(variables: Variables, x: ArrayLike) -> jax.Array:
    """What the encoder sees: x, or (x, 1)/√2 where it has one row more than the decoder."""
    return _encoder_inputs(*weights(variables), checks.matrix("x", x))


def predict(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute U, shape (n, d), as `Autoencoder.apply` does."""
    return _forward(*weights(variables), checks.matrix("x", x))


def preactivations(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute w_r·x_i, shape (n, m)."""
    encoder, _ = weights(variables)
    return product(encoder_inputs(variables, x), encoder)


def patterns(variables: Variables, x: ArrayLike) -> jax.Array:
    """Compute the activation patterns 1{w_r·x_i > 0}, boolean, shape (n, m).

    The paper writes ≥ and takes φ'(0) = 0 (footnote 2): these differ at w_r·x_i = 0 alone, where
    the patterns follow the footnote and with it the gradients.

    Example:
      >>> variables = {"params": {"encoder": jnp.eye(2), "decoder": jnp.ones((2, 2))}}
      >>> patterns(variables, jnp.array([[1.0, 0.0]])).tolist()
      [[True, False]]
    """
    return preactivations(variables, x) > 0


def residual(variables: Variables, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Compute Y − U, shape (n, d); y is x for an autoencoder."""
    outputs, y = predict(variables, x), jnp.asarray(y)
    if y.shape != outputs.shape:
        raise ValueError(
            f"y has shape {y.shape} and the outputs {outputs.shape}; expected the same: samples "
            "are rows, and for an autoencoder y is x."
        )
    return y - outputs


def encoder_gradient(variables: Variables, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Compute ∂L/∂w_r = −(1/√(md)) Σ_i 1{w_r·x_i > 0} x_i a_r·(y_i − u_i), shape (d, m).

    Equation (4.2) prints a_r x_iᵀ(x_i − u_i), the Jacobian without its transpose; (5.4) is right.

    Args:
      variables: of `Autoencoder`; the encoder need not be what trains.
      x, y: data, shapes (n, d); y is x for an autoencoder.

    Returns:
      Shape (d, m), or (d + 1, m) with a constant input; column r belongs to neuron r.

    Raises:
      ValueError: x is not of shape (n, d), y is not of that shape, or the d is another one.

    Reference: Nguyen, Wong and Hegde (2019a), equation (5.4).
    """
    _, decoder = weights(variables)
    errors = product(residual(variables, x, y), decoder)
    slopes = jnp.where(patterns(variables, x), errors, 0.0)
    return -product(encoder_inputs(variables, x).T, slopes) / math.sqrt(decoder.size)


def decoder_gradient(variables: Variables, x: ArrayLike, y: ArrayLike) -> jax.Array:
    """Compute ∂L/∂a_r = −(1/√(md)) Σ_i φ(w_r·x_i) (y_i − u_i), shape (d, m).

    Args, Raises: as for `encoder_gradient`.

    Reference: Nguyen, Wong and Hegde (2019a), equation (5.5).
    """
    _, decoder = weights(variables)
    hidden = jax.nn.relu(preactivations(variables, x))
    return -product(residual(variables, x, y).T, hidden) / math.sqrt(decoder.size)


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """a b, in full: patterns are decided at 0, and accelerators would round the factors."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _forward(encoder: jax.Array, decoder: jax.Array, x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(_encoder_inputs(encoder, decoder, x) @ encoder)
    return (hidden @ decoder.T) / math.sqrt(decoder.size)


def _encoder_inputs(encoder: jax.Array, decoder: jax.Array, x: jax.Array) -> jax.Array:
    _check_rows("decoder", decoder, x.shape[1], x)
    if encoder.shape[0] == decoder.shape[0] + 1:
        return append_constant(x)
    _check_rows("encoder", encoder, x.shape[1], x)
    return x


def _check_rows(name: str, leaf: jax.Array, rows: int, x: jax.Array) -> None:
    if jnp.ndim(leaf) != 2 or leaf.shape[0] != rows:
        raise ValueError(
            f"x has shape {x.shape} and the {name} {jnp.shape(leaf)}; expected {rows} rows of the "
            f"{name}, as drawn for data with the features of x. Samples are rows of x."
        )
