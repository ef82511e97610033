"""How long descent on the octopus stays at each saddle point: step by step, and in closed form.

Waiting coordinates shrink by 1 − 2ηL at every step, and underflow after 1,074 halvings in float64:
all of it is done in scaled arithmetic, see `scaled`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.saddles.arguments import (
    THESIS,
    Constants,
    cast,
    check_constants,
    check_step_size,
    one_number,
)
from ntkflow.systems.saddles.fast_forward import EscapeTimes, fast_forward
from ntkflow.systems.saddles.octopus import (
    check_domain,
    gradient,
    in_domain,
    multipliers,
    octopus,
    stage,
)
from ntkflow.systems.saddles.scaled import Scaled, from_scaled, multiply, to_scaled
from ntkflow.training.perturbed import perturbed_gradient_descent
from ntkflow.training.recording import scan_recorded


class Escape(NamedTuple):
    """A run on the octopus.

    Attributes:
      steps: of the records, int32, shape (records,).
      x: the iterates at the records, shape (records, d); `from_scaled(x)` in floating point.
      objective: f at the records.
      gradient_norm: ‖∇f‖ at the records.
      stage: how many saddle points lie behind, at the records.
      times: `EscapeTimes` of the run, of every step; inf where it ended before.
      inside: whether all iterates, recorded or not, were in the domain.
    """

    steps: jax.Array
    x: Scaled
    objective: jax.Array
    gradient_norm: jax.Array
    stage: jax.Array
    times: EscapeTimes
    inside: jax.Array


def simulate(
    x: ArrayLike | Scaled,
    constants: Constants = THESIS,
    *,
    step_size: ArrayLike,
    steps: int,
    every: int = 1,
) -> Escape:
    """Gradient descent on the octopus, step by step, in arithmetic that does not underflow.

    x ← x − η ∇f(x), where |x_j| ≤ τ as the multiple x_j (1 − η c_j) of `multipliers`, whose
    rounding is relative to x_j at any size. In plain float64 the same run stops for good at a
    saddle point whose waiting coordinate has underflowed.

    Args:
      x: the start, shape (d,), in the domain; or a `Scaled` of that shape, from where a run ended.
      constants: L, γ, τ; they may be traced.
      step_size: η > 0; the theorems ask for η ≤ 1/(2L), or 1/ℓ.
      steps: number of steps, less than 2³¹.
      every: steps between records, which are taken as by `descend`.

    Returns:
      `Escape`. Iterates that leave the domain, which η > 1/(2L) may cause, are NaN.

    Raises:
      ValueError: a start outside of the domain, η ≤ 0, L < γ.

    Example:
      >>> run = simulate(jnp.array([0.5, -0.5]), Constants(1.0), step_size=0.25, steps=60, every=20)
      >>> run.steps.tolist(), run.stage.tolist(), run.times.stage.tolist()
      ([0, 20, 40, 60], [0, 1, 2, 2], [6.0, 21.0])

    Reference: Du (2019), equation (7.1), on (7.14)–(7.18).
    """
    start, step_size = _read(x, constants, step_size)
    steps, every = _count("steps", steps), _count("every", every)
    return _simulate(start, constants, step_size, steps, every)


def simulate_perturbed(
    key: jax.Array,
    x: ArrayLike | Scaled,
    constants: Constants = THESIS,
    *,
    step_size: ArrayLike,
    radius: ArrayLike,
    gradient_threshold: ArrayLike,
    waiting_time: ArrayLike,
    steps: int,
    every: int = 1,
) -> Escape:
    """Perturbed gradient descent on the octopus, `perturbed_gradient_descent`, step by step.

    In plain floating point: noise reaches every coordinate before it can underflow.

    Args:
      key: PRNG key of the noise.
      x: the start, shape (d,), in the domain.
      constants: L, γ, τ; they may be traced.
      step_size: η > 0.
      radius, gradient_threshold, waiting_time: r, g_thres and t_thres; the thesis' experiments
        have τ/100, γτ/100 and 1.
      steps: number of steps, less than 2³¹.
      every: steps between records, of the iterates before noise is added to them.

    Returns:
      `Escape`.

    Raises:
      ValueError: as `simulate`; and as `perturbed_gradient_descent`.

    Example:
      >>> tau = Constants().tau
      >>> run = simulate_perturbed(
      ...     jax.random.key(0), jnp.array([0.5, 0.0]), Constants(1.0), step_size=0.25,
      ...     radius=tau / 100, gradient_threshold=tau / 100, waiting_time=1, steps=100, every=50)
      >>> run.stage.tolist()  # gradient descent from x_2 = 0 ends at the second saddle point
      [0, 2, 2]

    Reference: Du (2019), Algorithm 2 and section 7.5.
    """
    start, step_size = _read(x, constants, step_size)
    steps, every = _count("steps", steps), _count("every", every)
    noise = _noise(key, radius, gradient_threshold, waiting_time)
    return _simulate_perturbed(from_scaled(start), constants, step_size, noise, steps, every)


def escape_times(
    x: ArrayLike | Scaled, constants: Constants = THESIS, *, step_size: ArrayLike
) -> EscapeTimes:
    """The escape times of gradient descent, without taking its steps.

    Until |x_k| ≥ τ, coordinate k grows by 1 + 2ηγ and those after it shrink by 1 − 2ηL: that many
    steps are one logarithm each. Only the crossings of the buffers τ ≤ |x_k| < 2τ, at most
    ⌈1/(2ηγ)⌉ steps each, are taken one by one. The cost grows like d, not like the times.

    The times are those of `simulate`, but for a coordinate that passes τ or 2τ within rounding,
    which is about (steps) · (machine epsilon). Against 60-digit arithmetic, from 12 starts at each
    of five settings: right to the step below 10¹³ steps in float64 and 10⁵ in float32, and to 66
    machine epsilons, relatively, beyond. Where η is 1/(2L) but for rounding, so that 1 − 2ηL is
    rounding alone, the times are rounding too; at 2ηL = 1 exactly they are inf from A_2 on.

    Args:
      x: the start, shape (d,), in the domain; or a `Scaled` of that shape.
      constants: L, γ, τ; they may be traced.
      step_size: η, 0 < η ≤ 1/(2L).

    Returns:
      `EscapeTimes`: inf from the first coordinate on that is exactly 0, since a start with
      x_k = 0 never leaves saddle point k. NaN from where the run leaves the domain, which no run
      from [−1, 1]^d with τ ≥ e does, or where η is so small that steps in a buffer round to 0.

    Raises:
      ValueError: a start outside of the domain, η not in (0, 1/(2L)], L < γ.

    Example:
      >>> escape_times(jnp.full(10, 0.5), step_size=0.05).stage.tolist()[::3]
      [23.0, 2254.0, 183130.0, 14849642.0]
      >>> start = jnp.array([0.5, -0.5] + 8 * [0.0])
      >>> escape_times(start, Constants(1.0), step_size=0.25).stage.tolist()[:4]
      [6.0, 21.0, inf, inf]

    Reference: Du (2019), proof of Lemma 7.2.
    """
    start, eta = _read(x, constants, step_size)
    check_step_size(step_size, constants)
    return fast_forward(start, constants, eta)


def perturbed_escape_times(
    key: jax.Array,
    x: ArrayLike | Scaled,
    constants: Constants = THESIS,
    *,
    step_size: ArrayLike,
    radius: ArrayLike,
    gradient_threshold: ArrayLike,
    waiting_time: ArrayLike,
    limit: int,
) -> EscapeTimes:
    """The escape times of perturbed gradient descent, which stops when it has left all saddles.

    Args:
      key, x, constants, step_size, radius, gradient_threshold, waiting_time: those of
        `simulate_perturbed`.
      limit: the largest number of steps, less than 2³¹.

    Returns:
      `EscapeTimes`; inf where `limit` steps were not enough.

    Raises:
      ValueError: as `simulate_perturbed`.

    Example:
      >>> tau = Constants().tau
      >>> times = perturbed_escape_times(
      ...     jax.random.key(0), jnp.full(10, 0.5), Constants(1.0), step_size=0.25,
      ...     radius=tau / 100, gradient_threshold=tau / 100, waiting_time=1, limit=1000)
      >>> times.stage.tolist()[-1] < 300, escape_times(
      ...     jnp.full(10, 0.5), Constants(1.0), step_size=0.25).stage.tolist()[-1]
      (True, 69339.0)

    Reference: Du (2019), Algorithm 2 and Theorem 7.3.
    """
    start, step_size = _read(x, constants, step_size)
    limit = _count("limit", limit)
    noise = _noise(key, radius, gradient_threshold, waiting_time)
    return _perturbed_escape_times(from_scaled(start), constants, step_size, noise, limit)


class _Noise(NamedTuple):
    key: jax.Array
    radius: ArrayLike
    gradient_threshold: ArrayLike
    waiting_time: ArrayLike

    def optimizer(self, step_size: ArrayLike) -> Any:
        return perturbed_gradient_descent(
            step_size, self.radius, self.gradient_threshold, self.waiting_time, self.key
        )


def _noise(key: jax.Array, *numbers: ArrayLike) -> _Noise:
    noise = _Noise(key, *numbers)
    noise.optimizer(1.0)  # refuses at the door, where values can be read
    return noise


def _read(
    x: ArrayLike | Scaled, constants: Constants, step_size: ArrayLike
) -> tuple[Scaled, jax.Array]:
    check_constants(constants)
    one_number(step_size=step_size)
    if checks.is_concrete(step_size) and not 0 < np.asarray(step_size, float) < np.inf:
        raise ValueError(f"step_size is {step_size}; expected a finite number greater than 0.")
    if isinstance(x, Scaled):
        check_domain(from_scaled(x), constants)
    else:
        x = to_scaled(check_domain(x, constants))
    if x.mantissa.ndim != 1:
        raise ValueError(
            f"x has shape {x.mantissa.shape}; expected one start (d,). For several use jax.vmap."
        )
    return x, jnp.asarray(step_size, x.mantissa.dtype)


def _count(name: str, value: int) -> int:
    number = checks.positive_int(name, value)
    if number >= 2**31:
        raise ValueError(
            f"{name} is {number}; expected less than 2³¹, as steps are counted in int32. "
            "escape_times(...) jumps over waiting times of any length."
        )
    return number


def _advance(x: Scaled, constants: Constants, step_size: jax.Array) -> Scaled:
    """One step of gradient descent: multiples where |x_j| ≤ τ, differences beyond."""
    plain = from_scaled(x)
    small = multiply(x, 1 - step_size * multipliers(plain, constants))
    large = to_scaled(plain - step_size * gradient(plain, constants))
    near = jnp.abs(plain) <= cast(constants, plain.dtype).tau
    return Scaled(*(jnp.where(near, a, b) for a, b in zip(small, large, strict=True)))


def _none(x: jax.Array) -> EscapeTimes:
    return EscapeTimes(*(jnp.full_like(x, jnp.inf) for _ in range(2)))


def _noted(times: EscapeTimes, t: jax.Array, x: jax.Array, constants: Constants) -> EscapeTimes:
    """`times`, with those that x at step t sets."""
    order = jnp.arange(x.shape[-1])
    behind = stage(x, constants)
    left = order < behind
    there = left | ((order == behind) & (jnp.abs(x) >= cast(constants, x.dtype).tau))
    first = lambda before, now: jnp.where(now, jnp.minimum(before, t.astype(x.dtype)), before)  # noqa: E731
    return EscapeTimes(first(times.buffer, there), first(times.stage, left))


def _run(advance, start, view, constants, steps, every) -> Escape:
    """Steps of any descent, whose state `view` turns into a point in floating point."""

    def look(carry, t):
        state, times, inside = carry
        x = view(state)
        return x, _noted(times, t, x, constants), inside & in_domain(x, constants)

    def step(carry, t):
        _, times, inside = look(carry, t)
        return (advance(carry[0]), times, inside), {}

    def observe(t, carry):
        x, state = view(carry[0]), carry[0]
        number = state if isinstance(state, Scaled) else to_scaled(x)
        slope = gradient(x, constants)
        return {
            "x": number,
            "objective": octopus(x, constants),
            "gradient_norm": jnp.linalg.norm(slope),
            "stage": stage(x, constants),
        }

    begin = (start, _none(view(start)), jnp.array(True))
    carry, recorded, history = scan_recorded(
        step, observe, begin, steps, every, start=jnp.zeros((), jnp.int32)
    )
    _, times, inside = look(carry, recorded[-1])
    return Escape(recorded, **history, times=times, inside=inside)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _simulate(start, constants, step_size, steps, every) -> Escape:
    advance = lambda x: _advance(x, constants, step_size)  # noqa: E731
    return _run(advance, start, from_scaled, constants, steps, every)


def _perturbed(constants, step_size, noise):
    """`(init, advance)` of perturbed descent, whose state is (x, the optimizer's)."""
    optimizer = noise.optimizer(step_size)
    value = lambda x: octopus(x, constants)  # noqa: E731

    def advance(state):
        x, inner = state
        slope = gradient(x, constants)
        change, inner = optimizer.update(slope, inner, x, value_fn=value)
        return x + change, inner

    return optimizer.init, advance


@functools.partial(jax.jit, static_argnums=(4, 5))
def _simulate_perturbed(x, constants, step_size, noise, steps, every) -> Escape:
    init, advance = _perturbed(constants, step_size, noise)
    return _run(advance, (x, init(x)), lambda state: state[0], constants, steps, every)


@jax.jit
def _perturbed_escape_times(x, constants, step_size, noise, limit) -> EscapeTimes:
    init, advance = _perturbed(constants, step_size, noise)

    def going(carry):
        t, _, times = carry
        return jnp.isinf(times.stage[-1]) & (t < limit)

    def step(carry):
        t, state, times = carry
        state = advance(state)
        return t + 1, state, _noted(times, t + 1, state[0], constants)

    zero = jnp.zeros((), jnp.int32)
    begin = (zero, (x, init(x)), _noted(_none(x), zero, x, constants))
    return jax.lax.while_loop(going, step, begin)[2]
