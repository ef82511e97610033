"""Gradient descent and its relatives: a `lax.scan` over the steps of any optax optimizer."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ntkflow import checks
from ntkflow.parameters import Predicate, partition
from ntkflow.training.observe import (
    Loss,
    Observers,
    Snapshot,
    Trajectory,
    check_loss,
    check_loss_value,
    check_observers,
    check_state,
    record,
)
from ntkflow.training.recording import scan_recorded

Run = Callable[..., Trajectory]


class DescentState(NamedTuple):
    """What `descend` needs to go on where it stopped.

    Attributes:
      step: number of steps taken so far, an int32.
      optimizer: the optimizer's own state.
      initial_params: parameters at step 0.
    """

    step: jax.Array
    optimizer: Any
    initial_params: Any


def descend(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    steps: int,
    *,
    observe: Observers | None = None,
    every: int = 1,
    batch_size: int | None = None,
    trainable: Predicate | None = None,
) -> Run:
    """Build a training run: `steps` steps of an optax optimizer on a loss.

    θ(k+1) = θ(k) + update(∇L(θ(k))); plain gradient descent with `optax.sgd(η)`. Records are
    taken at steps 0, every, 2·every, … and at the last step, each before the step that follows
    it; nothing else is kept, so that memory does not grow with the number of steps.

    The run is a pure function: build it once and `jax.jit` it once, or map it with `over_seeds`;
    a run that is called outside of `jit` compiles anew at each call.

    Args:
      loss: `loss(params, data) -> scalar`.
      optimizer: any optax optimizer whose parameters are the model's and whose update takes
        gradients; value, grad and value_fn are handed to those that ask for them.
      steps: number of steps.
      observe: names → functions of a `Snapshot` (step, params, initial_params, data).
      every: steps between records.
      batch_size: samples per step; None is the full batch. `key` shuffles the data once per
        epoch, and the incomplete batch of each epoch is dropped. Recorded losses are of the full
        data all the same.
      trainable: a predicate on a parameter's path; the others stay as they are, and the optimizer
        never sees them. None trains the whole `params` collection.

    Returns:
      `run(params, data, key=None, state=None) -> Trajectory(params, state, steps, history)`. Hand
      `params` and `state` of a trajectory on, with the same `key`, to continue it: two runs in a
      row take the steps of a single long one.

    Raises:
      ValueError: `steps`, `every` or `batch_size` not positive, an optimizer in place of the
        loss, an observer named "loss"; and from the run: NaN in params or data, no samples,
        `batch_size` larger than their number, a key missing with `batch_size`, an optimizer that
        keeps parameters of its own or wants what a run cannot give.

    Example:
      >>> loss = lambda params, data: 0.5 * jnp.sum((params - data) ** 2)
      >>> run = jax.jit(descend(loss, optax.sgd(0.5), steps=3))
      >>> trajectory = run(jnp.array([8.0]), jnp.array([0.0]))
      >>> trajectory.steps.tolist(), trajectory.history["loss"].tolist()
      ([0, 1, 2, 3], [32.0, 8.0, 2.0, 0.5])
      >>> run(trajectory.params, jnp.array([0.0]), state=trajectory.state).steps.tolist()
      [3, 4, 5, 6]
    """
    check_loss(loss, "descend")
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise ValueError(
            f"optimizer is of type {type(optimizer).__name__}; expected an optax optimizer, e.g. "
            "optax.sgd(0.1). The order is descend(loss, optimizer, steps)."
        )
    steps = checks.positive_int("steps", steps)
    every = checks.positive_int("every", every)
    if batch_size is not None:
        batch_size = checks.positive_int("batch_size", batch_size)
    observe = check_observers(observe)
    update = _update_function(optimizer)

    def run(
        params: Any,
        data: Any,
        key: jax.Array | None = None,
        state: DescentState | None = None,
    ) -> Trajectory:
        checks.prng_key(key)
        check_state(state, DescentState)
        checks.finite("params", params)
        checks.finite("data", data)
        check_loss_value(loss, params, data)
        next_batch, first_batch = _batches(data, batch_size, key)
        selected, merge = partition(params, trainable)
        if state is None:
            with _words_for_optimizer():
                optimizer_state = optimizer.init(selected)
            state = DescentState(jnp.zeros((), jnp.int32), optimizer_state, params)
        initial_params = state.initial_params
        start = state.step

        def step(carry, k):
            selected, optimizer_state, batches = carry
            batch, batches = next_batch(batches, k)
            value_fn = lambda part: loss(merge(part), batch)  # noqa: E731
            value, grad = jax.value_and_grad(value_fn)(selected)
            with _words_for_optimizer():
                updates, optimizer_state = update(
                    grad, optimizer_state, selected, value=value, grad=grad, value_fn=value_fn
                )
            selected = optax.apply_updates(selected, updates)
            # The loss of a step on the full batch is that of the record: nothing to add.
            own = {"loss": value} if batch_size is None else {}
            return (selected, optimizer_state, batches), own

        def observed(k, carry):
            return record(observe, Snapshot(k, merge(carry[0]), initial_params, data))

        def observed_with_loss(k, carry):
            return observed(k, carry) | {"loss": loss(merge(carry[0]), data)}

        (selected, optimizer_state, _), recorded, history = scan_recorded(
            step,
            observed if batch_size is None else observed_with_loss,
            (selected, state.optimizer, first_batch(start)),
            steps,
            every,
            start=start,
            last=observed_with_loss,
        )
        return Trajectory(
            params=merge(selected),
            state=DescentState(start + steps, optimizer_state, initial_params),
            steps=recorded,
            history=history,
        )

    return run


def _update_function(optimizer):
    """The optimizer's update, given value, grad and value_fn as far as its signature asks."""
    # An object that is no GradientTransformation, optax.MultiSteps say, takes any extra argument.
    plain = isinstance(optimizer, optax.GradientTransformation)
    update = (optax.with_extra_args_support(optimizer) if plain else optimizer).update
    offered = {"value", "grad", "value_fn"}
    named = inspect.signature(update).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in named)
    asked = {p.name for p in named} - {"updates", "state", "params"}
    required = {
        p.name for p in named if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    } - offered
    if required:
        raise ValueError(
            f"The optimizer's update wants {sorted(required)}; a run can give value, grad and "
            "value_fn. Bind the rest before, or write the loop yourself."
        )

    def limited(updates, state, params, **extra):
        given = extra if takes_any else {n: v for n, v in extra.items() if n in asked}
        return update(updates, state, params, **given)

    return limited


@contextlib.contextmanager
def _words_for_optimizer():
    """An optimizer that wants other parameters than the model's fails here: say so."""
    try:
        yield
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"The optimizer does not work on these parameters and this state ({error}). A state of "
            "another optimizer cannot be continued, and one that keeps parameters of its own, such "
            "as optax.lookahead, is not supported."
        ) from error


def _batches(data, batch_size, key):
    """`(next_batch, first)`: next_batch(state, step) -> (batch, state), first(step) -> state.

    The state is the permutation of the epoch under way. It is a function of the key and the
    epoch's number alone, so that a continued run finds it again.
    """
    leaves = jax.tree.leaves(data)
    if batch_size is None:
        for leaf in leaves:
            if jnp.ndim(leaf) and jnp.shape(leaf)[0] == 0:
                raise ValueError(f"data holds an array of shape {jnp.shape(leaf)}: no samples.")
        return (lambda state, step: (data, state)), (lambda step: ())

    if not leaves:
        raise ValueError("batch_size is given and data holds no arrays to take batches of.")
    n = checks.same_length(**{f"data{i}": leaf for i, leaf in enumerate(leaves)})
    if batch_size > n:
        raise ValueError(f"batch_size is {batch_size}, and there are only {n} samples.")
    if key is None:
        raise ValueError("batch_size needs a key to shuffle by: run(params, data, key).")
    per_epoch = n // batch_size

    def permutation(step):
        return jax.random.permutation(jax.random.fold_in(key, step // per_epoch), n)

    def next_batch(order, step):
        position = step % per_epoch
        order = jax.lax.cond(position == 0, permutation, lambda _: order, step)
        rows = jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data), order

    return next_batch, permutation
