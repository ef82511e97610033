"""Transfer: what a fresh network learns from the most important features of a trained one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.features.nodes import ranking
from ntkflow.kernels.initializable import initializable
from ntkflow.training.descent import descend
from ntkflow.training.observe import Loss

Hidden = Callable[[Any, Any], jax.Array]


class Transfer(NamedTuple):
    """What an external network makes of the features.

    Attributes:
      train_loss, test_loss: at the end of its training, scalars.
      train_outputs, test_outputs: its outputs there, (n, o) or (n,): for accuracies and the like.
      params: its parameters.
    """

    train_loss: jax.Array
    test_loss: jax.Array
    train_outputs: jax.Array
    test_outputs: jax.Array
    params: Any


class ExternalNetwork(nn.Module):
    """Fully connected ReLU network with biases, in the standard parameterization.

    The paper has one hidden layer of 64 nodes, and 128 on MNIST; its released code two of them,
    `widths=(64, 64)`, and PyTorch's initialization. Here it is Flax's: weights of variance
    1/fan_in (3 times as much as PyTorch's), biases 0. Inputs of more than two axes are flattened.

    Attributes:
      widths: of the hidden layers.
      outputs: o; None is a scalar network, of shape (n,).
      param_dtype: of the weights; float follows JAX.

    Raises:
      ValueError: a width, or the number of outputs, is no whole number greater than 0; a width in
        place of a sequence of them.

    Example:
      >>> module = ExternalNetwork(widths=(64,), outputs=10)
      >>> jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.ones((3, 5)))[0].shape
      (3, 10)

    Reference: Caron et al. (2023), appendix J.
    """

    widths: Sequence[int] = (64,)
    outputs: int | None = None
    param_dtype: Any = float

    @nn.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x = jnp.asarray(x)
        x = x.reshape(len(x), -1)
        outputs = 1 if self.outputs is None else checks.positive_int("outputs", self.outputs)
        param_dtype = jax.dtypes.canonicalize_dtype(self.param_dtype)
        if isinstance(self.widths, int):
            raise ValueError(
                f"widths is {self.widths}; expected one for each hidden layer, ({self.widths},)."
            )
        for width in self.widths:
            width = checks.positive_int("widths", width)
            x = nn.relu(nn.Dense(width, param_dtype=param_dtype)(x))
        y = nn.Dense(outputs, param_dtype=param_dtype)(x)
        return y[:, 0] if self.outputs is None else y


def top_features(hidden: Hidden, kept: int) -> Callable[[Any, ArrayLike, Any], jax.Array]:
    """Build the features of the `kept` most important nodes.

    Args:
      hidden: `hidden(variables, x)`, outputs of a hidden layer of shape (n, m), or (n, ..., m) of
        a convolution, with the nodes on the last axis. Of a `flax.linen.Sequential`, those after
        k layers are `nn.Sequential(module.layers[:k]).apply`.
      kept: number of features, static.

    Returns:
      `features(variables, importance, x)`, shape (n, kept) or (n, ..., kept), the most important
      one first.

    Raises:
      ValueError: `kept` is no whole number greater than 0; and from the function: more features
        kept than there are nodes, or another number of nodes than importances.

    Example:
      >>> features = top_features(lambda variables, x: x @ variables, kept=2)
      >>> features(jnp.diag(jnp.array([1.0, 2.0, 3.0])), jnp.array([1.0, 4.0, 9.0]),
      ...          jnp.ones((1, 3))).tolist()
      [[3.0, 2.0]]

    Reference: Caron et al. (2023), appendix J; the released code takes the scaled outputs
    √λ_j σ(z_j), as `hidden` of a node-scaled network gives them.
    """
    if not callable(hidden):
        raise ValueError(
            f"hidden is of type {type(hidden).__name__}; expected a function hidden(variables, x), "
            "e.g. nn.Sequential(module.layers[:2]).apply."
        )
    kept = checks.positive_int("kept", kept)

    def features(variables: Any, importance: ArrayLike, x: Any) -> jax.Array:
        order = ranking(importance)
        if kept > len(order):
            raise ValueError(
                f"kept is {kept}, and there are {len(order)} nodes; expected at most as many."
            )
        values = hidden(variables, x)
        if values.ndim < 2 or values.shape[-1] != len(order):
            raise ValueError(
                f"hidden(variables, x) returned shape {values.shape}, and importance has shape "
                f"{order.shape}; expected ({len(x)}, ..., {len(order)}), nodes on the last axis."
            )
        return jnp.take(values, order[:kept], axis=-1)

    return features


def transfer(
    hidden: Hidden,
    kept: int,
    external: Any,
    loss: Callable[..., Loss],
    optimizer: optax.GradientTransformation,
    steps: int,
) -> Callable[..., Transfer]:
    """Build a transfer: a fresh network, trained on the top features of a trained one.

    The trained network stays as it is; its `kept` most important features are the inputs of the
    external network, which takes `steps` steps on the full batch.

    Args:
      hidden, kept: as for `top_features`.
      external: a Flax module, such as `ExternalNetwork(outputs=10)`, or a pair of functions
        `(init(key, x) -> params, apply(params, x))`.
      loss: from a network to its loss: `ntkflow.squared_loss`, `ntkflow.cross_entropy_loss`, or
        `functools.partial(ntkflow.squared_loss, reduction="mean")`.
      optimizer: any that `descend` takes.
      steps: number of steps.

    Returns:
      `run(key, variables, importance, train, test) -> Transfer`, with `train` and `test` pairs
      (x, y) of the trained network's inputs. A pure function: jit it once, or it compiles anew at
      each call; vmap it over seeds.

    Raises:
      ValueError: as for `top_features` and `descend`; `external` is no network, or `loss` no
        function from a network to its loss.

    Example:
      >>> import ntkflow
      >>> x = jnp.linspace(-1.0, 1.0, 8)[:, None]
      >>> run = transfer(lambda w, x: jnp.cos(x * w[None, :]), 2, nn.Dense(1),
      ...                ntkflow.squared_loss, optax.sgd(0.1), steps=100)
      >>> w = jnp.array([0.5, 1.0, 2.0])
      >>> train, test = ((x[k::2], x[k::2] ** 2) for k in (0, 1))
      >>> result = jax.jit(run)(jax.random.key(0), w, w**2, train, test)
      >>> result.test_outputs.shape, bool(result.test_loss < 0.01)
      ((4, 1), True)

    Reference: Caron et al. (2023), appendix J: half of the validation set trains an external
    network of 64 hidden nodes for 5000 steps of learning rate 1 (0.1 in the released code), the
    other half tests it.
    """
    features = top_features(hidden, kept)
    init, apply = initializable(external)
    try:
        objective = loss(apply)
    except TypeError as error:
        raise ValueError(
            f"loss does not turn a network into its loss ({error}); expected "
            "ntkflow.squared_loss or ntkflow.cross_entropy_loss themselves, not called yet; "
            "functools.partial(ntkflow.squared_loss, reduction='mean') fixes an option."
        ) from error
    descent = descend(objective, optimizer, steps, every=steps)

    def run(
        key: jax.Array, variables: Any, importance: ArrayLike, train: Any, test: Any
    ) -> Transfer:
        checks.prng_key(key)
        (x_train, y_train), (x_test, y_test) = _pair("train", train), _pair("test", test)
        seen = features(variables, importance, x_train)
        unseen = features(variables, importance, x_test)
        trajectory = descent(init(key, seen[:1]), (seen, y_train))
        params = trajectory.params
        return Transfer(
            train_loss=trajectory.history["loss"][-1],
            test_loss=objective(params, (unseen, y_test)),
            train_outputs=apply(params, seen),
            test_outputs=apply(params, unseen),
            params=params,
        )

    return run


def _pair(name: str, data: Any) -> tuple[Any, Any]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"{name} is of type {type(data).__name__}; expected a pair (x, y).")
    x, y = data
    checks.same_length(x=x, y=y)
    return x, y
