"""Where a run of Algorithm 1 leads, decided as soon as it is certain; how often it succeeds.

What decides is a proof, not a threshold: a run of Table 5.1 takes 9 steps on average, where an
angle of 0.1 takes hundreds or thousands.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.arccos import align
from ntkflow.systems.weight_normalized_filter.arguments import check
from ntkflow.systems.weight_normalized_filter.initialization import initialize_reduced
from ntkflow.systems.weight_normalized_filter.population import inverse_overlap
from ntkflow.systems.weight_normalized_filter.reduction import (
    Problem,
    Reduced,
    advance,
    aligned,
    check_problem,
    polar,
    whole,
)
from ntkflow.training.mapping import over_devices

_BETWEEN = 8  # steps between two looks at whether runs are decided
# Open runs are worked off in blocks: a share of all runs, at least so many, looks at each.
_PARTS, _LEAST, _LOOKS = 64, 256, 4


class Decision(NamedTuple):
    """Where runs lead.

    Attributes:
      outcome: +1 to the global minimum, −1 to the spurious one, 0 not decided; int32.
      steps: taken until it was certain, a multiple of 8, int32.
    """

    outcome: jax.Array
    steps: jax.Array


class Success(NamedTuple):
    """How often a random start leads to the global minimum; arrays over the settings.

    Attributes:
      probability: the share of runs that do.
      standard_error: √(P(1 − P)/runs).
      undecided: the share of runs that were not decided within the limit; no success.
      steps: the mean number of steps until it was certain.
    """

    probability: jax.Array
    standard_error: jax.Array
    undecided: jax.Array
    steps: jax.Array


def outcome(state: Reduced, problem: Problem, step_size: ArrayLike) -> jax.Array:
    """Decide where runs lead, from a state of theirs: +1, −1, or 0 where it is not yet certain.

    Let Q = aᵀa*, s = 1ᵀa*, φ = ∠(v, w*), u = s(‖w*‖s − 1ᵀa), κ = η(k+π−1)/2π ≤ 1. By Theorem 5.2,

        u⁺ = (1 − κ) u + κ u_∞(φ),    u_∞(φ) = (π − g(φ))‖w*‖s²/(k + π − 1)
        Q⁺ = (1 − η(π−1)/2π) Q + (η/2π) (‖w*‖(g(φ) − 1)‖a*‖² + u)
        φ⁺ = |φ − arctan z|,    z = η‖w*‖Q(π − φ) sin φ/(2π‖v‖²),    ‖v⁺‖² = ‖v‖²(1 + z²)

    (above π, reflected there)
    and F(φ) = ‖w*‖(g − 1)‖a*‖² + u_∞ falls with φ, because g does and s² ≤ k‖a*‖².

    Spurious, −1: Q < 0 and ‖w*‖(g − 1)‖a*‖² + max(u, u_∞) < 0. Then Q⁺ < 0, and as long as φ does
    not fall, this remains so: u⁺ ≤ max(u, u_∞(φ)), and if the maximum is the first, g has fallen;
    if it is the second, F(φ⁺) ≤ F(φ). φ rises or is reflected at π, no farther back than it was
    where arctan z ≤ 2(π − φ), for which ηb sin φ ≤ 4π‖v‖² is enough: ‖w*‖|Q| never exceeds
    b = ‖w*‖ max(|Q|, ‖w*‖‖a*‖² + max(|u|, u_∞(π))/(π − 1)).

    Global, +1: Q > 0 and ‖w*‖(g − 1)‖a*‖² + min(u, u_∞) > 0, φ < π. In the same way this remains
    so as long as φ does not rise. It cannot for φ ≥ π/4, since arctan z < π/2. Below, reflected at
    0, it stays below π/2, where g > 1, and that is enough if u ≥ 0, which remains so; if u < 0,
    ηb ≤ 4‖v‖² is asked for, with which φ does not rise.

    From then on |Q| stays away from 0. If ‖v‖ remains bounded, the product of 1 + z² does, so that
    z → 0; if it does not, ‖v‖² grows like √t at most, and the sum of z = O(1/‖v‖²) diverges unless
    sin φ → 0. Either way φ goes to 0 or π, and a follows. With equality at F(φ) = 0 = Q lies the
    saddle between the two. Theorem 5.3's start is a case of +1, without its bound on the step size;
    Theorem 5.5's is one of −1. All signs must stand out from rounding, but for that of u ≥ 0.

    Args:
      state: runs of any shape.
      problem, step_size: arrays that broadcast against the runs; η ≤ 2π/(k + π − 1).

    Returns:
      int32, of the shape all broadcast to.

    Raises:
      ValueError: η is above 2π/(k + π − 1), or not positive, or no teacher has these numbers.

    Example:
      >>> start = Reduced(jnp.array([0.1, -0.9, -0.9]), 0.5, 0.1, jnp.array([1.0, 1.0, -1.0]), 0.0)
      >>> outcome(start, Problem(25, 0.5, 1.0), 0.1).tolist()
      [1, 0, -1]

    Reference: Du (2019), sections 5.4.1 and 5.11; the conditions are derived here.
    """
    check_problem(problem)
    check_step_size(step_size, problem.patches)
    state, problem, step_size = aligned(state, problem, step_size)
    k, s, norm, filter_norm = problem
    inverse, cosine, sine, rest = polar(state)
    g = rest * cosine + sine
    u = s * (filter_norm * s - state.total)
    slope = filter_norm * s**2 / (k + np.pi - 1)
    ahead = (np.pi - g) * slope
    force = filter_norm * (g - 1) * norm**2
    largest = jnp.maximum(jnp.abs(u), np.pi * slope)
    bound = jnp.maximum(jnp.abs(state.overlap), filter_norm * norm**2 + largest / (np.pi - 1))
    reach = step_size * filter_norm * bound * inverse**2
    # u → 0 and, for k = 1, F(π) = 0: their rounding has either sign.
    terms = filter_norm * (np.pi * norm**2 + s**2) + jnp.abs(s * state.total)
    rounding = 32 * jnp.finfo(terms.dtype).eps * terms
    forward = (state.overlap > 0) & (force + jnp.minimum(u, ahead) > rounding) & (rest > 0)
    forward &= (u >= -rounding) | (reach <= 4)
    backward = (state.overlap < 0) & (force + jnp.maximum(u, ahead) < -rounding)
    backward &= reach * sine <= 4 * np.pi
    return forward.astype(jnp.int32) - backward.astype(jnp.int32)


def run_until_decided(
    state: Reduced, problem: Problem, step_size: ArrayLike, limit: int = 100_000
) -> Decision:
    """Take steps until all runs are decided, or `limit` of them.

    Args:
      state: runs of any shape.
      problem, step_size: arrays that broadcast against the runs; η ≤ 2π/(k + π − 1).
      limit: number of steps, rounded up to a multiple of 8, after which what is not decided is
        left so.

    Returns:
      Decision, in the shape all broadcast to. A run is not decided where it starts on the saddle
      between the basins, at φ = π, or with NaN.

    Raises:
      ValueError: η is above 2π/(k + π − 1), or not positive, or no teacher has these numbers.

    Example:
      >>> start = initialize_reduced(jax.random.key(0), 60, problem := Problem(25, 1.0, 0.5), p=6)
      >>> sorted(set(run_until_decided(start, problem, 0.2).outcome.tolist()))
      [-1, 1]

    Reference: Du (2019), section 5.5.2.
    """
    check_problem(problem)
    check_step_size(step_size, problem.patches)
    return _decide(state, problem, step_size, limit=checks.positive_int("limit", limit))


def success_probability(
    key: jax.Array,
    problem: Problem,
    p: ArrayLike,
    runs: int,
    *,
    step_size: ArrayLike | None = None,
    limit: int = 100_000,
    devices: int | Sequence[jax.Device] | None = None,
) -> Success:
    """Estimate how often a start of Theorem 5.4 leads to the global minimum.

    Its signs are those drawn: no choice is made among the four. Runs are split over the devices.

    Args:
      key: PRNG key.
      problem: arrays that broadcast to the shape of the settings.
      p: entries of the filter, likewise.
      runs: number of starts of each setting.
      step_size: η, likewise; None is 0.9·2π/(k + π − 1), below the bound of Lemma 5.4.
      limit: of steps.
      devices: local devices to use, or how many; None takes all.

    Returns:
      Success, arrays of the shape of the settings.

    Raises:
      ValueError: as `initialize_reduced` and `run_until_decided`; no such devices.

    Example:
      >>> problem = Problem(25, jnp.array([0.0, 1.0, 1.5]), 0.5)
      >>> found = success_probability(jax.random.key(0), problem, p=6, runs=500)
      >>> [round(float(share), 1) for share in found.probability]
      [0.5, 0.7, 1.0]

    Reference: Du (2019), Table 5.1.
    """
    runs, limit = checks.positive_int("runs", runs), checks.positive_int("limit", limit)
    check_problem(problem)
    check(p=p)
    if step_size is None:
        step_size = usual_step_size(problem.patches)
    check_step_size(step_size, problem.patches)
    if isinstance(devices, Sequence):
        devices = tuple(devices)
    *numbers, p, step_size = align(*problem, p, step_size)
    found = _study(limit, devices)(jax.random.split(key, runs), Problem(*numbers), p, step_size)
    return _summary(found, p.dtype)


def limit_success_probability(ratio: ArrayLike, k: ArrayLike, p: ArrayLike) -> jax.Array:
    """Compute the success probability of Table 5.1 in the limit ‖a*‖ → 0, exactly; elementwise.

    Then a comes to rest before v turns: 1ᵀa and aᵀa* follow φ⁰ alone, and a start leads to the
    global minimum where F(φ⁰) > 0 (see `outcome`), that is, with ρ = ratio/(k + π − 1), where

        g(φ⁰) > (1 − πρ)/(1 − ρ),

    and φ⁰ has the density ∝ sin^(p−2) φ: the regularized incomplete beta function
    I_x((p−1)/2, (p−1)/2) at x = sin²(φ_c/2), φ_c where the two sides are equal.

    Args:
      ratio: (1ᵀa*)²/‖a*‖², in [0, k].
      k: number of patches.
      p: entries of the filter; for p = 1, v = ±w*/‖w*‖ never turns.

    Returns:
      The probability, ½ at ratio 0, and 1 from (k + π − 1)/π on where p > 1, of the shape all
      broadcast to.

    Raises:
      ValueError: k or p is no whole number greater than 0, the ratio is out of its range.

    Example:
      >>> found = limit_success_probability(jnp.array([0.0, 4.0, 9.0]), 25, 6)
      >>> [round(float(share), 3) for share in found]
      [0.5, 0.711, 1.0]

    Reference: Du (2019), Table 5.1; derived here.
    """
    check(ratio=ratio, k=k, p=p)
    ratio, k, p = align(ratio, k, p)
    if checks.is_concrete(ratio) and checks.is_concrete(k) and np.any(np.asarray(ratio > k)):
        raise ValueError(f"ratio is {ratio} and k {k}; expected (1ᵀa*)²/‖a*‖² in [0, k].")
    return _limit(ratio, k, p)


def usual_step_size(patches: ArrayLike) -> jax.Array:
    """η = 0.9·2π/(k + π − 1), below the bound of Lemma 5.4.

    >>> round(float(usual_step_size(25)), 4)
    0.2083
    """
    (k,) = align(patches)
    return 0.9 * 2 * np.pi / (k + np.pi - 1)


def check_step_size(step_size: ArrayLike, patches: ArrayLike) -> None:
    """Refuse a step size above 2π/(k + π − 1), as far as it can be read."""
    check(step_size=step_size)
    if not (checks.is_concrete(step_size) and checks.is_concrete(patches)):
        return
    largest = 2 * np.pi / (np.asarray(patches, float) + np.pi - 1)
    if np.any(np.asarray(step_size, float) > largest * (1 + 1e-6)):
        raise ValueError(
            f"step_size is {step_size}; expected at most 2π/(k + π − 1) = {largest.min():.6g} "
            f"for k = {patches} patches: above, 1ᵀa overshoots (Lemma 5.4)."
        )


@functools.partial(jax.jit, static_argnames="limit")  # once for all calls of a shape
def _decide(state: Reduced, problem: Problem, step_size: ArrayLike, limit: int) -> Decision:
    """All runs for one look, then the few that are still open, a block of them at a time."""
    state, problem, step_size = whole(state, problem, step_size)
    shape = state.total.shape
    flat = lambda part: jnp.broadcast_to(part, shape).reshape(-1)  # noqa: E731
    setting = jax.tree.map(flat, (problem, step_size))
    state = jax.tree.map(flat, state)
    found = outcome(state, *setting)
    runs = (state, found, jnp.zeros_like(found))
    block = min(max(found.size // _PARTS, _LEAST), found.size)

    def look(runs: Any, setting: Any) -> Any:
        state, found, steps = runs
        one = lambda _, now: advance(now, *setting)  # noqa: E731
        state = jax.lax.fori_loop(0, _BETWEEN, one, state)
        still = is_open(runs)  # not `found == 0`: others of the block may have steps left
        steps = jnp.where(still, steps + _BETWEEN, steps)
        return state, jnp.where(still, outcome(state, *setting), found), steps

    def is_open(runs: Any) -> jax.Array:
        return (runs[1] == 0) & (runs[2] < limit)

    def some(runs: Any) -> Any:
        (chosen,) = jnp.nonzero(is_open(runs), size=block, fill_value=found.size)
        pick = lambda part: jnp.take(part, chosen, mode="clip")  # noqa: E731
        own, own_setting = jax.tree.map(pick, (runs, setting))
        _, own = jax.lax.while_loop(
            lambda carry: (carry[0] < _LOOKS) & jnp.any(is_open(carry[1])),
            lambda carry: (carry[0] + 1, look(carry[1], own_setting)),
            (0, own),
        )
        return jax.tree.map(lambda all_, few: all_.at[chosen].set(few, mode="drop"), runs, own)

    runs = jax.lax.cond(jnp.any(found == 0), lambda: look(runs, setting), lambda: runs)
    _, found, steps = jax.lax.while_loop(lambda runs: jnp.any(is_open(runs)), some, runs)
    return Decision(found.reshape(shape), steps.reshape(shape))


@jax.jit  # once for all calls of a shape
def _limit(ratio: jax.Array, k: jax.Array, p: jax.Array) -> jax.Array:
    rho = ratio / (k + np.pi - 1)
    critical = inverse_overlap(jnp.maximum((1 - np.pi * rho) / (1 - rho), 0))
    half = jnp.maximum(p - 1, 1) / 2
    spread = betainc(half, half, jnp.sin(critical / 2) ** 2)
    probability = jnp.where(np.pi * rho >= 1, 1.0, spread)
    return jnp.where(p > 1, probability, 0.5)


@functools.cache  # `over_devices` compiles anew each time it is built
def _study(limit: int, devices: Any) -> Any:
    def study(keys: jax.Array, problem: Problem, p: jax.Array, step_size: jax.Array) -> Decision:
        draw = lambda key: jax.tree.map(  # noqa: E731
            lambda part: part[0], initialize_reduced(key, 1, problem, p)
        )
        return _decide(jax.vmap(draw)(keys), problem, step_size, limit)

    return over_devices(study, devices=devices)


@functools.partial(jax.jit, static_argnums=1)
def _summary(found: Decision, dtype: Any) -> Success:
    share = jnp.mean(found.outcome == 1, axis=0, dtype=dtype)
    return Success(
        share,
        jnp.sqrt(share * (1 - share) / len(found.outcome)),
        jnp.mean(found.outcome == 0, axis=0, dtype=dtype),
        jnp.mean(found.steps, axis=0, dtype=dtype),
    )
