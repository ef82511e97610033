"""Perturbed gradient descent: noise where the gradient is small, and descent from there."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from ntkflow import checks


class PerturbedState(NamedTuple):
    """What perturbed gradient descent remembers.

    Attributes:
      step: t, the number of steps taken, an int32.
      last_noise: t_noise, the step at which noise was added last, an int32; -1 before the first.
      key: the PRNG key that every draw is folded from.
    """

    step: jax.Array
    last_noise: jax.Array
    key: jax.Array


def perturbed_gradient_descent(
    learning_rate: ArrayLike,
    radius: ArrayLike,
    gradient_threshold: ArrayLike,
    waiting_time: ArrayLike,
    key: Any,
) -> optax.GradientTransformationExtraArgs:
    """Build perturbed gradient descent, an optimizer that escapes strict saddle points.

    At step t: where ‖∇f(x_t)‖ ≤ g_thres and t − t_noise > t_thres, x_t ← x_t + ξ with ξ uniform in
    the ball of radius r, and t_noise ← t; then, always, x_{t+1} = x_t − η ∇f(x_t), the gradient
    being that at the perturbed point. Norm and ball are those of all parameters together. There
    is no test for termination, as in the source: noise keeps being added near a minimum.

    It needs the loss itself, `value_fn`, which `descend` hands on, and evaluates a second gradient
    at the steps with noise. Under `vmap` every step costs two gradients, since `lax.cond` then
    computes both of its branches. What precedes it in an `optax.chain` changes the gradients that
    it sees, but not those that it takes at the steps with noise: put it first.

    The first noise may come at once, as with the source's t_noise = −t_thres − 1. Noise at step t
    is a function of `key` and t, so that a continued run goes on as one long run. Each seed needs
    a key of its own: build the optimizer within the experiment that is mapped over keys.

    Args:
      learning_rate: η > 0.
      radius: r > 0, in units of the parameters.
      gradient_threshold: g_thres ≥ 0, for the norm of the gradient.
      waiting_time: t_thres ≥ 0, in steps; noise comes at most every ⌊t_thres⌋ + 1 steps.
      key: one PRNG key; all arguments may be traced.

    Returns:
      The optax transformation; its update asks for `params` and `value_fn`.

    Raises:
      ValueError: η or r is not positive, g_thres or t_thres negative, `key` no single key; and
        from the update: `params` or `value_fn` is missing.

    Example:
      >>> from ntkflow.training.descent import descend
      >>> saddle = lambda x, curvatures: 0.5 * jnp.sum(curvatures * x**2)
      >>> run = lambda optimizer: jax.jit(descend(saddle, optimizer, 60))(
      ...     jnp.zeros(2), jnp.array([1.0, -1.0]))
      >>> run(optax.sgd(0.1)).params.tolist()  # stays at the saddle point
      [0.0, 0.0]
      >>> perturbed = perturbed_gradient_descent(0.1, 0.01, 0.01, 10, jax.random.key(0))
      >>> abs(run(perturbed).params.tolist()[1]) > 0.1
      True

    References:
      Du (2019), Algorithm 2, where the input is x^(0) and the first step prints t = 1; Jin, Ge,
      Netrapalli, Kakade and Jordan (2017), "How to Escape Saddle Points Efficiently".
    """
    checks.prng_key(key)
    if key is None:
        raise ValueError("key is None; expected one PRNG key, e.g. jax.random.key(0).")
    for name, value, positive in (
        ("learning_rate", learning_rate, True),
        ("radius", radius, True),
        ("gradient_threshold", gradient_threshold, False),
        ("waiting_time", waiting_time, False),
    ):
        _check_number(name, value, positive)

    def init(params: Any) -> PerturbedState:
        del params
        return PerturbedState(jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32), key)

    def update(
        updates: Any,
        state: PerturbedState,
        params: Any = None,
        *,
        value_fn: Any = None,
        **extra: Any,
    ) -> tuple[Any, PerturbedState]:
        del extra
        if params is None or value_fn is None:
            raise ValueError(
                "perturbed_gradient_descent got no params or no value_fn; call update(grads, "
                "state, params, value_fn=loss) with the loss as a function of params alone: the "
                "gradient at the perturbed point is taken from it."
            )
        gradient = updates
        # In floating point: an integer beyond int32 would be compared as a negative one.
        waited = (state.last_noise < 0) | (state.step - state.last_noise > 1.0 * waiting_time)
        noisy = waited & (_norm(gradient) <= gradient_threshold)

        def with_noise() -> Any:
            noise = uniform_in_ball(jax.random.fold_in(state.key, state.step), params, radius)
            at_noise = jax.grad(value_fn)(jax.tree.map(jnp.add, params, noise))
            return jax.tree.map(jnp.add, noise, _scaled(at_noise, -1.0 * learning_rate))

        change = jax.lax.cond(noisy, with_noise, lambda: _scaled(gradient, -1.0 * learning_rate))
        last_noise = jnp.where(noisy, state.step, state.last_noise)
        return change, PerturbedState(state.step + 1, last_noise, state.key)

    return optax.GradientTransformationExtraArgs(init, update)


def uniform_in_ball(key: jax.Array, like: Any, radius: ArrayLike = 1.0) -> Any:
    """Draw from the uniform distribution on a ball: a Gaussian direction times r U^{1/d}.

    Args:
      key: PRNG key.
      like: a pytree of floating-point arrays, d entries in all; only shapes and dtypes are read.
      radius: r, of the ball over all leaves together.

    Returns:
      A pytree like `like`.

    Example:
      >>> like = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}
      >>> noise = jax.jit(uniform_in_ball)(jax.random.key(0), like, 0.5)
      >>> sum(float((leaf**2).sum()) for leaf in jax.device_get(noise).values()) <= 0.5**2
      True
    """
    leaves, structure = jax.tree.flatten(like)
    size = sum(leaf.size for leaf in leaves)
    length_key, *keys = jax.random.split(key, len(leaves) + 1)
    direction = [
        jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)
    ]
    norm = _norm(direction)
    length = radius * jax.random.uniform(length_key, (), norm.dtype) ** (1 / max(size, 1))
    # A direction of zeros, which a single float32 may draw, has no length to divide by.
    scale = length / jnp.where(norm > 0, norm, 1.0)
    return jax.tree.unflatten(structure, _scaled(direction, scale))


def _norm(tree: Any) -> jax.Array:
    """‖·‖ over all leaves, in float32 at least: squares in float16 end at 6e-8 and 65504."""
    wide = lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))  # noqa: E731
    return jnp.asarray(optax.tree.norm(jax.tree.map(wide, tree)))


def _scaled(tree: Any, factor: ArrayLike) -> Any:
    """`factor` times `tree`, whose dtypes stay."""
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), tree)


def _check_number(name: str, value: ArrayLike, positive: bool) -> None:
    expected = f"expected one finite number, {'greater than 0' if positive else '0 or greater'}."
    if callable(value):
        raise ValueError(f"{name} is a function; {expected} Schedules are not supported.")
    if np.ndim(value):
        raise ValueError(f"{name} has shape {np.shape(value)}; {expected}")
    if not checks.is_concrete(value):
        return
    number = np.asarray(value, float)
    if not (number > 0 if positive else number >= 0) or np.isinf(number):
        raise ValueError(f"{name} is {value}; {expected}")
