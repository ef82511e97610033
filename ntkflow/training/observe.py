"""What a run records: functions of a snapshot, evaluated along the way."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Loss = Callable[[Any, Any], jax.Array]


class Snapshot(NamedTuple):
    """A moment of a run, as observers see it.

    Attributes:
      step: number of steps taken; in a gradient flow, the time.
      params: parameters now.
      initial_params: parameters at step 0, also in a run that was continued.
      data: the full data, also in a run on minibatches.
    """

    step: ArrayLike
    params: Any
    initial_params: Any
    data: Any


Observer = Callable[[Snapshot], Any]
Observers = Mapping[str, Observer]


class Trajectory(NamedTuple):
    """The result of a run.

    Attributes:
      params: parameters at the end.
      state: what a run needs to go on from here, for `run(params, data, key, state)`.
      steps: the steps, or times, of the records, shape (records,).
      history: name → array with a leading axis of records; holds "loss" always.
    """

    params: Any
    state: Any
    steps: jax.Array
    history: dict[str, Any]


def check_observers(observe: Observers | None, recorded: tuple[str, ...] = ("loss",)) -> Observers:
    """The observers, {} for None; refuses what is no mapping of functions, and what a run
    records by itself."""
    observe = {} if observe is None else observe
    if not isinstance(observe, Mapping) or not all(callable(f) for f in observe.values()):
        raise ValueError(
            f"observe is {observe!r}; expected a mapping from names to functions of a snapshot, "
            'e.g. {"norm": lambda snapshot: optax.tree.norm(snapshot.params)}.'
        )
    for name in recorded:
        if name in observe:
            raise ValueError(f'"{name}" is recorded always; give the observer another name.')
    return observe


def record(observe: Observers, snapshot: Snapshot) -> dict[str, Any]:
    """The value of every observer at `snapshot`."""
    return {name: observer(snapshot) for name, observer in observe.items()}


def check_loss(loss: Any, builder: str) -> None:
    """Refuse what cannot be a loss: an optimizer, most of all."""
    if not callable(loss):
        raise ValueError(
            f"{builder} got {type(loss).__name__} as its loss; expected a function "
            "loss(params, data) -> scalar, e.g. ntkflow.squared_loss(apply)."
        )


def check_loss_value(loss: Loss, params: Any, data: Any) -> None:
    """Refuse a loss that is not one real number, before it is differentiated."""
    value = jax.eval_shape(loss, params, data)
    scalar = isinstance(value, jax.ShapeDtypeStruct) and value.shape == ()
    if not scalar or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"loss(params, data) returned {value}; expected a scalar, real and floating point. Sum "
            "or average over samples."
        )


def check_state(state: Any, kind: type) -> None:
    """Refuse a state that another kind of run left behind."""
    if state is not None and not isinstance(state, kind):
        raise ValueError(
            f"state is of type {type(state).__name__}; expected {kind.__name__}, from a trajectory "
            "of the same kind of run."
        )
