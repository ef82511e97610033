"""Gradient flow: the loss as an ordinary differential equation, solved by diffrax."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.parameters import Predicate, partition
from ntkflow.training.descent import Run
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


class FlowState(NamedTuple):
    """What `gradient_flow` needs to go on where it stopped.

    Attributes:
      time: the time reached, that of the final parameters.
      initial_params: parameters at time 0.
      succeeded: whether the solver reached every time; where it did not, the records from there
        on are inf (integers have none: theirs hold no meaning).
      solver_steps: steps of the solver, taken and rejected.
    """

    time: jax.Array
    initial_params: Any
    succeeded: jax.Array
    solver_steps: jax.Array


def gradient_flow(
    loss: Loss,
    times: ArrayLike,
    *,
    observe: Observers | None = None,
    trainable: Predicate | None = None,
    solver: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    max_solver_steps: int = 100_000,
) -> Run:
    """Build a run of gradient flow, recorded at given times.

    dθ/dt = −∇L(θ), from t = 0. A step of gradient descent of size η is η units of time.

    The solver is adaptive. Where the loss has kinks (ReLU networks), the path is only once
    differentiable and tight tolerances make the solver creep over each kink: the defaults are
    moderate, and a smooth network bears much tighter ones.

    Args:
      loss: `loss(params, data) -> scalar`.
      times: increasing, ≥ 0, shape (records,), concrete.
      observe: names → functions of a `Snapshot`, whose `step` is the time.
      trainable: as for `descend`.
      solver: a diffrax solver; `diffrax.Tsit5()` by default. `diffrax.Kvaerno5()` for stiff
        problems, whose kernel has λ_max · t_max far above 10⁴.
      rtol, atol: relative and absolute tolerance of one solver step, in units of the parameters;
        by default 1e-7 and 1e-9 in float64, 1e-4 and 1e-6 in float32.
      max_solver_steps: a solve that needs more has failed.

    Returns:
      `run(params, data, key=None, state=None) -> Trajectory`, with times in `steps`. `key` is not
      used. A failed solve is data: `state.succeeded` says so, and no exception is raised. A run
      continued from `state` goes on at `state.time`, and wants times from there on.

    Raises:
      ValueError: times that are not increasing or negative, a loss that is none, an observer
        named "loss"; and from the run: NaN in params or data.

    Example:
      >>> loss = lambda params, data: 0.5 * jnp.sum(params**2)
      >>> run = gradient_flow(loss, times=[0.0, 1.0])
      >>> round(float(run(jnp.array([1.0]), None).params[0]), 4)  # exp(−1)
      0.3679
    """
    check_loss(loss, "gradient_flow")
    observe = check_observers(observe)
    max_solver_steps = checks.positive_int("max_solver_steps", max_solver_steps)
    times = np.asarray(times, dtype=float)
    if times.ndim != 1 or not times.size or not np.isfinite(times).all():
        raise ValueError(f"times has shape {times.shape}; expected (records,), all finite.")
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError(f"times is {times}; expected increasing times from 0 on.")

    def run(
        params: Any, data: Any, key: jax.Array | None = None, state: FlowState | None = None
    ) -> Trajectory:
        checks.prng_key(key)  # a flow is deterministic; the argument is that of every run
        import diffrax  # half a second to import: only where it is used

        check_state(state, FlowState)
        checks.finite("params", params)
        checks.finite("data", data)
        check_loss_value(loss, params, data)
        selected, merge = partition(params, trainable)
        dtype = jnp.result_type(*jax.tree.leaves(selected))
        wide = dtype == jnp.float64
        time_dtype = jnp.promote_types(dtype, jnp.float32)
        if state is None:
            start, initial_params = jnp.zeros((), time_dtype), params
        else:
            start, initial_params = state.time, state.initial_params
            if checks.is_concrete(start) and start > times[0]:
                raise ValueError(
                    f"The state has reached time {start} and times starts at {times[0]}; expected "
                    "times from there on: build the flow that continues with later ones."
                )

        def velocity(t, part, args):
            gradient = jax.grad(lambda part: loss(merge(part), data))(part)
            return jax.tree.map(jnp.negative, gradient)

        def observed(t, part, args):
            snapshot = Snapshot(t, merge(part), initial_params, data)
            return record(observe, snapshot) | {"loss": loss(merge(part), data)}

        ts = jnp.asarray(times, time_dtype)
        due = start <= ts[0]  # under a trace, times before the start are a failed solve
        ts = jnp.maximum(ts, start)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            diffrax.Tsit5() if solver is None else solver,
            t0=start,
            t1=ts[-1],
            dt0=None,
            y0=selected,
            saveat=diffrax.SaveAt(
                subs=[diffrax.SubSaveAt(ts=ts, fn=observed), diffrax.SubSaveAt(t1=True)]
            ),
            stepsize_controller=diffrax.PIDController(
                rtol=(1e-7 if wide else 1e-4) if rtol is None else rtol,
                atol=(1e-9 if wide else 1e-6) if atol is None else atol,
            ),
            max_steps=max_solver_steps,
            throw=False,
        )
        history, final = solution.ys
        # The solver promotes all parameters to one dtype, and stops early where it fails.
        end = jax.tree.map(lambda leaf, like: leaf[-1].astype(like.dtype), final, selected)
        succeeded = due & (solution.result == diffrax.RESULTS.successful)
        return Trajectory(
            params=merge(end),
            state=FlowState(
                solution.ts[1][-1], initial_params, succeeded, solution.stats["num_steps"]
            ),
            steps=ts,
            history=history,
        )

    return run
