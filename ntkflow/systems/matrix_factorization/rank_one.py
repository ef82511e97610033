"""Rank one, ½ ‖uvᵀ − σ_1 u*v*ᵀ‖_F² with a constant step: four numbers follow the whole iteration.

α = u·u*, β = v·v* are the signals, α_⊥ and β_⊥ the norms of what is orthogonal to u* and v*;
h = αβ − σ_1 and ξ = α_⊥² + β_⊥².
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.systems.matrix_factorization.arguments import (
    check,
    check_positive,
    factors,
    host,
    library,
    real,
    source,
)
from ntkflow.theory import Bound


class RankOne(NamedTuple):
    """Where a rank-one factorization stands; arrays of one shape, records on the last axis.

    Attributes:
      alpha: α = u·u*.
      beta: β = v·v*.
      alpha_perp: α_⊥ = ‖u − α u*‖ ≥ 0.
      beta_perp: β_⊥ = ‖v − β v*‖ ≥ 0.
    """

    alpha: Any
    beta: Any
    alpha_perp: Any
    beta_perp: Any


class StageTimes(NamedTuple):
    """How long the stages of a run took, in steps; inf where a stage did not end.

    Attributes:
      escape: T_1, the first t with α_t² + β_t² ≥ ½σ_1.
      complement: T_2, from there on until ξ stays below its threshold.
      signal: T_3, from there on until |h| stays below its threshold.
    """

    escape: np.ndarray
    complement: np.ndarray
    signal: np.ndarray


def reduce(params: Any, u_star: ArrayLike, v_star: ArrayLike) -> RankOne:
    """(α, β, α_⊥, β_⊥) of u and v.

    Args:
      params: {"u": (d_1, 1), "v": (d_2, 1)}.
      u_star, v_star: unit vectors, shapes (d_1,) and (d_2,).

    Returns:
      RankOne of scalars.

    Raises:
      ValueError: there is more than one column, a shape does not fit, u* or v* has not norm 1.

    Example:
      >>> params = {"u": jnp.array([[3.0], [4.0]]), "v": jnp.array([[2.0]])}
      >>> [float(x) for x in reduce(params, jnp.array([0.0, 1.0]), jnp.array([1.0]))]
      [4.0, 2.0, 3.0, 0.0]

    Reference: Du (2019), section 4.8.
    """
    u, v = factors(params)
    u_star, v_star = jnp.asarray(u_star, u.dtype), jnp.asarray(v_star, v.dtype)
    for name, factor, star in (("u", u, u_star), ("v", v, v_star)):
        if star.ndim != 1 or factor.shape != (star.size, 1):
            raise ValueError(
                f"{name} has shape {factor.shape} and {name}_star {star.shape}; expected (d, 1) "
                "and (d,): the reduction is of rank one."
            )
        norm = jnp.linalg.norm(star)
        if checks.is_concrete(norm) and abs(float(norm) - 1) > 1e-4:
            raise ValueError(f"{name}_star has norm {float(norm)}; expected a unit vector.")
    (alpha, alpha_perp), (beta, beta_perp) = (
        _split(factor[:, 0], star) for factor, star in ((u, u_star), (v, v_star))
    )
    return RankOne(alpha, beta, alpha_perp, beta_perp)


def advance(state: RankOne, step_size: ArrayLike, sigma_1: ArrayLike) -> RankOne:
    """One step of gradient descent on (α, β, α_⊥, β_⊥), exactly that of u and v.

    α⁺ = (1 − η‖v‖²) α + ησ_1 β and α_⊥⁺ = |1 − η‖v‖²| α_⊥, and so with u and v exchanged. The text
    prints η_1 for η in β⁺, and no absolute value, which matters only for η‖v‖² > 1.

    Example:
      >>> [round(float(x), 6) for x in advance(RankOne(1.0, 0.5, 0.2, 0.0), 0.1, 2.0)]
      [1.075, 0.648, 0.195, 0.0]

    Reference: Du (2019), equation (4.23).
    """
    alpha, beta, alpha_perp, beta_perp = (jnp.asarray(part) for part in state)
    kept_u = 1 - step_size * (beta**2 + beta_perp**2)
    kept_v = 1 - step_size * (alpha**2 + alpha_perp**2)
    gain = step_size * sigma_1
    return RankOne(
        kept_u * alpha + gain * beta,
        kept_v * beta + gain * alpha,
        jnp.abs(kept_u) * alpha_perp,
        jnp.abs(kept_v) * beta_perp,
    )


def simulate(state: RankOne, step_size: ArrayLike, sigma_1: ArrayLike, steps: int) -> RankOne:
    """The states of `steps` steps from `state` on, the first included: shapes (steps + 1,).

    Raises:
      ValueError: `steps`, the step size or σ_1 is not positive; arrays: map with `jax.vmap`.

    Example:
      >>> path = simulate(RankOne(0.1, 0.1, 0.2, 0.2), step_size=0.1, sigma_1=1.0, steps=200)
      >>> path.alpha.shape, float((path.alpha * path.beta)[-1].round(6))
      ((201,), 1.0)
    """
    steps = checks.positive_int("steps", steps)
    check_positive(step_size=step_size, sigma_1=sigma_1)
    shapes = [jnp.shape(value) for value in (*state, step_size, sigma_1)]
    if shapes != [()] * 6:
        raise ValueError(
            f"state, step_size and sigma_1 have shapes {shapes}; expected four numbers, one and "
            "one. Over seeds or steps, map: jax.vmap(simulate, (0, None, None, None))."
        )
    dtype = jnp.result_type(*state, 0.0)
    start = RankOne(*(jnp.asarray(part, dtype) for part in state))
    return _path(start, jnp.asarray(step_size, dtype), jnp.asarray(sigma_1, dtype), steps)


def signal_error(state: RankOne, sigma_1: ArrayLike) -> Any:
    """h = αβ − σ_1."""
    return state.alpha * state.beta - sigma_1


def complement(state: RankOne) -> Any:
    """ξ = α_⊥² + β_⊥²."""
    return state.alpha_perp**2 + state.beta_perp**2


def product_error(state: RankOne, sigma_1: ArrayLike) -> Any:
    """‖uvᵀ − M*‖_F = √(h² + α²β_⊥² + α_⊥²β² + α_⊥²β_⊥²), exactly.

    Of order √(σ_1 ξ), not ξ, once h is small: ξ = O(ε²σ_1) is what ‖uvᵀ − M*‖_F = O(εσ_1) needs,
    where the end of the proof of Theorem 4.5 has ξ = O(εσ_1).

    Example:
      >>> float(product_error(RankOne(2.0, 1.0, 0.0, 1.0), 2.0))  # u = 2u*, v = v* + something
      2.0
    """
    h = signal_error(state, sigma_1)
    a, b, a_perp, b_perp = (part**2 for part in state)
    return (h**2 + a * b_perp + a_perp * b + a_perp * b_perp) ** 0.5


def next_signal_error(state: RankOne, step_size: ArrayLike, sigma_1: ArrayLike) -> Any:
    """h_{t+1} from the state at t.

    (1 − η(α² + β²) + η²(αβh + α²β_⊥² + β²α_⊥² + α_⊥²β_⊥²)) h − ηαβξ + η²σ_1α_⊥²β_⊥².

    Reference: Du (2019), equation (4.24).
    """
    h, xi, eta = signal_error(state, sigma_1), complement(state), step_size
    a, b, a_perp, b_perp = (part**2 for part in state)
    product = state.alpha * state.beta
    second = product * h + a * b_perp + b * a_perp + a_perp * b_perp
    factor = 1 - eta * (a + b) + eta**2 * second
    return factor * h - eta * product * xi + eta**2 * sigma_1 * a_perp * b_perp


def next_complement(state: RankOne, step_size: ArrayLike) -> Any:
    """ξ_{t+1} = (1 − η(β² + β_⊥²))² α_⊥² + (1 − η(α² + α_⊥²))² β_⊥².

    Reference: Du (2019), equation (4.24).
    """
    a, b, a_perp, b_perp = (part**2 for part in state)
    kept_u, kept_v = 1 - step_size * (b + b_perp), 1 - step_size * (a + a_perp)
    return kept_u**2 * a_perp + kept_v**2 * b_perp


def stage_times(
    path: RankOne, sigma_1: ArrayLike, epsilon: float, *, printed: bool = False
) -> StageTimes:
    """T_1, T_2 and T_3 of a run whose every step is recorded.

    T_2 ends where ξ stays at ε²σ_1 or below, T_3 where |h| stays at εσ_1 or below: then
    ‖uvᵀ − M*‖_F = O(εσ_1). The text has ξ = O(εσ_1), which leaves an error of order √ε σ_1.

    Args:
      path: of `simulate`, or recorded: shape (..., steps + 1).
      sigma_1: σ_1.
      epsilon: ε in (0, 1).
      printed: whether T_2 ends at ξ ≤ εσ_1.

    Returns:
      StageTimes, each of shape (...).

    Raises:
      ValueError: ε is not in (0, 1), σ_1 is not positive, the path is no path, or both signals
        start at 0: they remain there.

    Example:
      >>> path = simulate(RankOne(0.1, 0.1, 0.2, 0.2), step_size=0.1, sigma_1=1.0, steps=200)
      >>> [int(time) for time in stage_times(path, 1.0, 1e-3)]
      [19, 59, 0]

    Reference: Du (2019), Lemmas 4.5 and 4.6, proof of Theorem 4.5.
    """
    check_accuracy(epsilon)
    check_positive(sigma_1=sigma_1)
    path, sigma = read_path(path), np.asarray(sigma_1)
    check_start(path)
    escape = _first(path.alpha**2 + path.beta**2 >= sigma / 2)
    threshold = epsilon if printed else epsilon**2
    small = _stays(complement(path) <= threshold * sigma)
    accurate = _stays(np.abs(signal_error(path, sigma)) <= epsilon * sigma)
    second = np.maximum(escape, small)
    with np.errstate(invalid="ignore"):  # inf − inf: a stage that never began took forever
        lengths = second - escape, np.maximum(second, accurate) - second
    complement_time, signal_time = (np.where(np.isnan(x), np.inf, x) for x in lengths)
    return StageTimes(escape, complement_time, signal_time)


def rank_one_std(d: ArrayLike, sigma_1: ArrayLike, c_init: ArrayLike) -> Bound:
    """The standard deviation of the initial entries, δ = c_init √(σ_1/d), d = max(d_1, d_2).

    The text prints N(0, δI), as if δ were the variance; the proof's |α_0| between c_init √(σ_1/d) /
    10 and 10 times it holds for the standard deviation.

    Example:
      >>> round(rank_one_std(25, 4.0, 0.1).value, 12)
      0.04
    """
    check(d=d)
    check_positive(sigma_1=sigma_1, c_init=c_init)
    place = source("Theorem 4.5", "a standard deviation; printed as a variance")
    return Bound(c_init * (real(sigma_1) / d) ** 0.5, "c_init √(σ_1/d)", 1.0, place)


def signal_constant(path: RankOne, sigma_1: ArrayLike, times: StageTimes) -> np.ndarray:
    """c_1 of a run, min(α, β)² / (4σ_1) at T_1, shape (...); NaN where T_1 was not reached.

    Lemma 4.6 has one for all runs: with α/β in [1/100, 100] it is 1/80008 at least.
    """
    alpha, beta = np.asarray(path.alpha), np.asarray(path.beta)
    reached = np.isfinite(times.escape)
    index = np.where(reached, times.escape, 0).astype(int)[..., None]
    a, b = (np.take_along_axis(signal, index, axis=-1)[..., 0] for signal in (alpha, beta))
    least = np.minimum(np.abs(a), np.abs(b)) ** 2 / (4 * np.asarray(sigma_1))
    return np.where(reached, least, np.nan)


def escape_time(initial_signal: ArrayLike, sigma_1: ArrayLike, c_step: ArrayLike) -> Bound:
    """The bound on T_1, 1 + log(√σ_1 / (α_0 + β_0)) / log(1 + c_step/3) = O(log d).

    Args:
      initial_signal: α_0 + β_0 > 0; of order c_init √(σ_1/d).
      sigma_1: σ_1.
      c_step: ησ_1.

    Example:
      >>> round(float(escape_time(0.01, 1.0, 0.1).value), 1)
      141.4
    """
    check_positive(initial_signal=initial_signal, sigma_1=sigma_1, c_step=c_step)
    lib = library(initial_signal, sigma_1, c_step)
    ratio = lib.log(real(sigma_1) ** 0.5 / initial_signal) / lib.log(1 + real(c_step) / 3)
    value = 1 + lib.maximum(ratio, 0.0)
    formula = "1 + log(√σ_1 / (α_0 + β_0)) / log(1 + c_step/3)"
    return Bound(value, formula, 1.0, source("Lemma 4.5", "constants of the proof"))


def complement_time(
    c_1: ArrayLike,
    c_step: ArrayLike,
    complement_ratio: ArrayLike,
    epsilon: ArrayLike,
) -> Bound:
    """The bound on T_2, log(4ξ_0 / (c_1 ε² σ_1)) / (c_1 c_step): then ξ ≤ ¼c_1ε²σ_1.

    Args:
      c_1: of Lemma 4.6.
      c_step: ησ_1.
      complement_ratio: ξ_0/σ_1.
      epsilon: ε.

    Example:
      >>> round(float(complement_time(0.05, 0.02, 0.01, 0.1).value))
      4382
    """
    check_positive(c_1=c_1, c_step=c_step, epsilon=epsilon)
    check(complement_ratio=complement_ratio)
    lib = library(c_1, c_step, complement_ratio, epsilon)
    ratio = 4 * real(complement_ratio) / (c_1 * real(epsilon) ** 2)
    value = lib.log(lib.maximum(ratio, 1.0)) / (real(c_1) * c_step)
    place = source("proof of Theorem 4.5", "constants derived; Θ(log 1/ε)")
    return Bound(value, "log(4ξ_0 / (c_1 ε² σ_1)) / (c_1 c_step)", 1.0, place)


def signal_time(c_1: ArrayLike, c_step: ArrayLike, epsilon: ArrayLike) -> Bound:
    """The bound on T_3, log(4/ε) / (c_1 c_step): then |h| ≤ ½εσ_1 and ‖uvᵀ − M*‖_F ≤ εσ_1.

    Example:
      >>> round(float(signal_time(0.05, 0.02, 0.1).value))
      3689
    """
    check_positive(c_1=c_1, c_step=c_step, epsilon=epsilon)
    lib = library(c_1, c_step, epsilon)
    value = lib.log(lib.maximum(4 / real(epsilon), 1.0)) / (real(c_1) * c_step)
    place = source("proof of Theorem 4.5", "constants derived; Θ(log 1/ε)")
    return Bound(value, "log(4/ε) / (c_1 c_step)", 1.0, place)


def check_accuracy(epsilon: float) -> None:
    if not np.all((np.asarray(epsilon, float) > 0) & (np.asarray(epsilon, float) < 1)):
        raise ValueError(f"epsilon is {epsilon}; expected ε in (0, 1), in units of σ_1.")


def read_path(path: Any) -> RankOne:
    """The states of a run on the host, records on the last axis."""
    if not isinstance(path, RankOne):
        raise ValueError(
            f"path is of type {type(path).__name__}; expected RankOne, of simulate or of reduce "
            "along a run."
        )
    shapes = [np.shape(part) for part in path]
    if len(set(shapes)) > 1 or not shapes[0]:
        shown = shapes if len(set(shapes)) > 1 else shapes[0]
        raise ValueError(
            f"path has shape {shown}; expected (..., steps + 1) of each, every step recorded."
        )
    return RankOne(*map(host, path))


def check_start(path: RankOne) -> None:
    """Refuse runs that cannot escape: u_0 orthogonal to u*, and v_0 to v*."""
    start = np.asarray(path.alpha)[..., 0], np.asarray(path.beta)[..., 0]
    if np.any((start[0] == 0) & (start[1] == 0)):
        raise ValueError(
            "u_0 is orthogonal to u* and v_0 to v*: both signals are 0, and remain so. Draw them "
            "at random, as by initialize(key, d_1, d_2, 1, std)."
        )


@functools.partial(jax.jit, static_argnames="steps")  # once for all calls of a length
def _path(start: RankOne, step_size: jax.Array, sigma_1: jax.Array, steps: int) -> RankOne:
    last, path = jax.lax.scan(
        lambda now, _: (advance(now, step_size, sigma_1), now), start, None, length=steps
    )
    return jax.tree.map(lambda rows, row: jnp.concatenate([rows, row[None]]), path, last)


def _split(vector: jax.Array, star: jax.Array) -> tuple[jax.Array, jax.Array]:
    signal = vector @ star
    return signal, jnp.linalg.norm(vector - signal * star)


def _first(condition: np.ndarray) -> np.ndarray:
    return np.where(condition.any(axis=-1), condition.argmax(axis=-1), np.inf)


def _stays(condition: np.ndarray) -> np.ndarray:
    """The first record from which on the condition holds; inf where it fails at the last."""
    failing = ~condition
    after = condition.shape[-1] - failing[..., ::-1].argmax(axis=-1)
    first = np.where(failing.any(axis=-1), after, 0)
    return np.where(condition[..., -1], first, np.inf)
