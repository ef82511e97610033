"""Kernels of wide networks as averages over initializations, for what no rule can follow."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.empirical import empirical_nngp, empirical_ntk
from ntkflow.kernels.initializable import Apply, Init, initializable
from ntkflow.kernels.recursion import Kernels
from ntkflow.parameters import Predicate


class MonteCarlo(NamedTuple):
    """Kernels of one output, estimated.

    Attributes:
      mean: the averages over initializations.
      standard_error: of these averages, entry by entry.
    """

    mean: Kernels
    standard_error: Kernels


def monte_carlo_kernel(
    module: nn.Module | tuple[Init, Apply], samples: int, *, trainable: Predicate | None = None
) -> Callable[..., MonteCarlo]:
    """Build the mean NNGP and NTK of a network over independent initializations.

    With f the network of o outputs, θ_1, …, θ_S drawn by its initializers, and ᵀ over outputs,

        K_s(x, y) = f(x)·f(y) / o,   Θ_s(x, y) = tr(∂f(x)/∂θ (∂f(y)/∂θ)ᵀ) / o   at θ = θ_s
        mean = 1/S Σ_s K_s,   standard error = √(Σ_s (K_s − mean)² / (S (S − 1)))

    and likewise for Θ. It is for networks whose infinite width no closed recursion follows (tied
    weights, max pooling). The statistical error falls as 1/√S. The mean is that of the given
    width: it differs from the infinite one by O(1/width), which the standard error does not show.

    Memory: that of one empirical kernel and five results; initializations follow one another, with
    a running mean and variance. For many inputs: `in_blocks(monte_carlo_kernel(...))`.

    Args:
      module: a Flax Linen module, or a pair `(init(key, x) -> params, apply(params, x))`; outputs
        (n, o) or (n,). A module in training mode that asks for "dropout" keys gets, with each
        initialization, a mask of its own for each sample, as in a training step.
      samples: S, the number of initializations, at least 2.
      trainable: as for `empirical_ntk`.

    Returns:
      `kernel(key, x1, x2=None)`, pure; x2=None means x1, and is exactly symmetric. The kernels are
      of shape (n1, n2), and of the parameters' dtype or float32 if that is lower.

    Raises:
      ValueError: no module and no pair of functions, or fewer than 2 samples; and from the kernel:
        no key, or what `empirical_ntk` refuses.

    Example:
      >>> linear = (lambda key, x: jax.random.normal(key, (2,)), lambda w, x: x @ w)
      >>> kernel = monte_carlo_kernel(linear, samples=500)
      >>> mean, standard_error = kernel(jax.random.key(0), jnp.eye(2))
      >>> mean.ntk.tolist()  # of a linear model the same at all parameters
      [[1.0, 0.0], [0.0, 1.0]]
      >>> bool((abs(mean.nngp - jnp.eye(2)) < 3 * standard_error.nngp).all())
      True

    References:
      Novak et al. (2019), "Bayesian deep convolutional networks with many channels are Gaussian
      processes", section 4, for the NNGP.
    """
    init, apply = initializable(module)
    count = checks.positive_int("samples", samples)
    if count == 1:
        raise ValueError("samples is 1; expected at least 2, or there is no standard error.")

    @jax.jit
    def kernels(key, x1, x2):
        key, mask_key = jax.random.split(key)
        params = init(key, x1[:1])
        network = apply
        if _draws_masks(apply, params, x1):
            network, x1, x2 = _masked(apply, mask_key, x1, x2)
        nngp = empirical_nngp(network, outputs="trace")(params, x1, x2)
        ntk = empirical_ntk(network, outputs="trace", trainable=trainable)(params, x1, x2)
        outputs = math.prod(jax.eval_shape(network, params, x1).shape[1:])
        return jax.tree.map(
            lambda k: k.astype(jnp.promote_types(k.dtype, jnp.float32)) / outputs,
            Kernels(nngp, ntk),
        )

    @jax.jit  # or each call compiles the loop anew
    def estimate(key, x1, x2):
        def add(carry, numbered_key):
            # Welford's update: the squares of large means would cancel.
            mean, squares = carry
            number, key = numbered_key
            value = kernels(key, x1, x2)
            new_mean = jax.tree.map(lambda v, m: m + (v - m) / number.astype(m.dtype), value, mean)
            new_squares = jax.tree.map(
                lambda v, old, new, q: q + (v - old) * (v - new), value, mean, new_mean, squares
            )
            return (new_mean, new_squares), None

        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(kernels, key, x1, x2))
        keys = jax.random.split(key, count)
        (mean, squares), _ = jax.lax.scan(add, (zeros, zeros), (jnp.arange(1, count + 1), keys))
        if x2 is None:  # in a loop XLA may round the two halves apart
            mean, squares = jax.tree.map(lambda k: (k + k.T) / 2, (mean, squares))
        error = jax.tree.map(lambda q: jnp.sqrt(q / (count * (count - 1))), squares)
        return MonteCarlo(mean, error)

    def kernel(key: jax.Array, x1: ArrayLike, x2: ArrayLike | None = None) -> MonteCarlo:
        if key is None:
            raise ValueError("key is None; expected one PRNG key, e.g. jax.random.key(0).")
        checks.prng_key(key)
        checks.same_length(x1=x1)
        checks.finite("x1", x1)
        if x2 is not None:
            checks.same_length(x2=x2)
            checks.finite("x2", x2)
            x2 = jnp.asarray(x2)
        return estimate(key, jnp.asarray(x1), x2)

    return kernel


def _draws_masks(apply: Apply, params: Any, x: jax.Array) -> bool:
    try:
        jax.eval_shape(apply, params, x)
    except InvalidRngError:
        return True
    return False


def _masked(apply, key, x1, x2):
    """The network as a function of samples' numbers, by which each gets a mask of its own.

    The empirical kernels may take samples one by one, where one key would give all the same mask.
    """
    data = x1 if x2 is None else jnp.concatenate([x1, x2])

    def network(params, numbers):
        def one(number):
            return apply(params, data[number][None], jax.random.fold_in(key, number))[0]

        return jax.vmap(one)(numbers)

    numbers = jnp.arange(len(data))
    return network, numbers[: len(x1)], None if x2 is None else numbers[len(x1) :]
