"""Where the gradients of a run come from: the population, fresh samples, or one batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.data.generative import BilinearModel
from ntkflow.systems.sparse_autoencoder.arguments import check
from ntkflow.systems.sparse_autoencoder.network import (
    Activation,
    Reduction,
    approximate_gradient,
    bias_gradient,
    divisor,
    parameters,
    variables,
)
from ntkflow.systems.sparse_autoencoder.population import (
    population_bias_gradient,
    population_gradient,
)


class Gradients(NamedTuple):
    """What a source gives for one step.

    Attributes:
      weights: g, shape (n, m), column i belonging to W_i.
      bias: shape (m,); only `gradient_bias` reads it, and a compiled run leaves out what is not.
    """

    weights: jax.Array
    bias: jax.Array


Source = Callable[..., Gradients]


def population_source(model: BilinearModel) -> Source:
    """Build the source of expected gradients, "infinitely many fresh samples".

    They are those of `population_gradient`: in closed form, exact where the codes of (almost) all
    samples are consistent. Nothing in them sees a code that is not: check `code_consistency`.

    Example:
      >>> from ntkflow.data.generative import mixture_of_gaussians
      >>> source = population_source(mixture_of_gaussians(jnp.eye(2)))
      >>> float(jnp.abs(source(jnp.eye(2), jnp.zeros(2), None).weights).max())  # A is fixed
      0.0

    Reference: Nguyen, Wong and Hegde (2019b), equation (5) and Theorem 4.
    """
    check(model=model)
    return Partial(_population, model)


def _population(model, weights, bias, key):
    del key
    return Gradients(
        population_gradient(weights, bias, model), population_bias_gradient(weights, bias, model)
    )


def fresh_source(
    model: BilinearModel, samples: int, activation: Activation = jax.nn.relu
) -> Source:
    """Build the source of gradients on a fresh batch of the model's samples at each step.

    Args:
      model: the generative model.
      samples: N, the samples of one step; the gradient is their mean.
      activation: of the encoder.

    Raises:
      ValueError: `model` is no model, N is not positive, σ is no elementwise function; and from a
        run: the key is missing.
    """
    check(model=model)
    checks.elementwise("activation", activation)
    samples = checks.positive_int("samples", samples)

    def fresh(model, weights, bias, key):
        if key is None:
            raise ValueError("Fresh samples need a key to draw them by: run(weights, bias, key).")
        y = model.sample(key, samples).y
        return _on_samples(weights, bias, y, activation, "mean")

    return Partial(fresh, model)


def batch_source(
    y: ArrayLike,
    activation: Activation = jax.nn.relu,
    reduction: Reduction = "mean",
) -> Source:
    """Build the source of gradients on one fixed batch, as in the paper's experiments.

    Args:
      y: samples, shape (N, n).
      activation: of the encoder.
      reduction: the mean over samples, with which ζ = Θ(m) makes sense, or their sum.

    Raises:
      ValueError: y is not of shape (N, n), or holds NaN; σ is no elementwise function; unknown
        reduction.
    """
    if isinstance(y, tuple):
        raise ValueError(
            f"y is of type {type(y).__name__}; expected an array (N, n): what a model draws has "
            "it as model.sample(key, N).y."
        )
    y = checks.matrix("y", y)
    checks.elementwise("activation", activation)
    divisor(reduction, y)

    def batch(y, weights, bias, key):
        del key
        return _on_samples(weights, bias, y, activation, reduction)

    return Partial(batch, y)


def _on_samples(weights, bias, y, activation, reduction):
    arguments = weights, bias, y, activation, reduction
    return Gradients(approximate_gradient(*arguments), bias_gradient(*arguments))


def check_gradients(gradients: Any, params: Any) -> Any:
    """The gradients of a source as a tree like the parameters, if they have their shapes."""
    expected = tuple(jnp.shape(leaf) for leaf in parameters(params))
    shapes = tuple(map(jnp.shape, gradients)) if isinstance(gradients, tuple) else None
    if shapes != expected:
        found = type(gradients).__name__ if shapes is None else f"arrays of shapes {shapes}"
        raise ValueError(
            f"The source returned {found}; expected Gradients(weights, bias) of shapes {expected}."
        )
    return variables(*gradients)
