"""What Caron et al. (2023) state their theorems in terms of, and what holds for every activation.

The loss is L = ½ Σ_i (f(x_i) − y_i)², without 1/n. Throughout: n samples in d dimensions, λ the
scales of the m nodes, γ the share of their equal part, κ_n = λ_min(Θ*), δ the probability of
failure. Arguments are scalars or arrays that broadcast; sums over nodes are over the last axis.
Where κ_n or γ is 0, no width suffices and the bounds on a run are inf.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.dual import dual_activation
from ntkflow.systems.node_scaling.arguments import check, library, real, source
from ntkflow.systems.node_scaling.assumptions import findings
from ntkflow.systems.node_scaling.limits import largest_second_moment, limit_smallest_eigenvalue
from ntkflow.systems.node_scaling.network import Activation
from ntkflow.theory import Bound


class Setting(NamedTuple):
    """The numbers that Theorems 4.1, A.1 and H.1 are stated in; `measure_setting` finds them.

    Attributes:
      n, d: samples and features.
      gamma: γ, the share of the equal part of λ.
      kappa: κ_n = λ_min(Θ*), 0 where inputs are parallel.
      label_bound: C, at least every |y_i|.
      second_moment: C_1 = sup_{0<c≤1} E[σ(cz/√d)²], equation (8); the theorem for ReLU puts 1/d.
      curvature: M = sup |σ''|; inf for ReLU, whose theorem does without.
      delta: δ, the probability of failure.
    """

    n: ArrayLike
    d: ArrayLike
    gamma: ArrayLike
    kappa: ArrayLike
    label_bound: ArrayLike = 1.0
    second_moment: ArrayLike = 0.0
    curvature: ArrayLike = 1.0
    delta: ArrayLike = 0.1


def measure_setting(
    x: ArrayLike,
    y: ArrayLike,
    gamma: ArrayLike,
    *,
    activation: Activation,
    delta: ArrayLike = 0.1,
    label_bound: ArrayLike | None = None,
    variance: float = 1.0,
) -> Setting:
    """Find the numbers of the theorems from data, scales and activation.

    Args:
      x, y: data, shapes (n, d) and (n,).
      gamma: γ of `node_scales`.
      activation: σ.
      delta: δ.
      label_bound: C; None takes max |y_i|.
      variance: v of the weights. The theorems are proved for 1; with another, κ_n and C_1 are those
        of these weights, with which the proofs for smooth σ go through.

    Raises:
      ValueError: x, y or the activation is not as described; nothing else: data that break an
        assumption show in the numbers, κ_n = 0 for parallel inputs.

    Example:
      >>> x, y = jnp.eye(2), jnp.array([1.0, -2.0])
      >>> setting = measure_setting(x, y, 0.5, activation=jnp.sin)
      >>> [round(float(number), 6) for number in (setting.kappa, setting.curvature)]
      [0.34197, 1.0]

    Reference: Caron et al. (2023), section 4.
    """
    x, y = checks.matrix("x", x), jnp.asarray(y)
    n, d = checks.same_length(x=x, y=y), x.shape[1]
    if y.ndim != 1:
        raise ValueError(f"y has shape {y.shape}; expected (n,): the theorems are for one output.")
    check(gamma=gamma, delta=delta)
    return Setting(
        n=n,
        d=d,
        gamma=gamma,
        kappa=limit_smallest_eigenvalue(x, activation=activation, variance=variance),
        label_bound=jnp.max(jnp.abs(y)) if label_bound is None else label_bound,
        second_moment=largest_second_moment(d, activation=activation, variance=variance).value,
        curvature=findings(activation).constants.smoothness,
        delta=delta,
    )


def check_setting(setting: Setting) -> None:
    """Refuse numbers that no data and no network have."""
    n, d, gamma, kappa, label_bound, second_moment, curvature, delta = setting
    check(n=n, d=d, gamma=gamma, kappa=kappa, delta=delta)
    check(label_bound=label_bound, second_moment=second_moment, curvature=curvature)


def quotient(numerator: ArrayLike, denominator: ArrayLike) -> Any:
    """numerator / denominator, inf where that is 0.

    >>> float(quotient(1.0, 0.0)), float(quotient(1.0, 4.0))
    (inf, 0.25)
    """
    lib = library(numerator, denominator)
    zero = lib.equal(denominator, 0)
    return lib.where(zero, math.inf, numerator / lib.where(zero, 1.0, denominator))[()]


def expected_initial_error(
    x: ArrayLike,
    y: ArrayLike,
    *,
    activation: Activation,
    variance: ArrayLike = 1.0,
    printed: bool = False,
) -> Bound:
    """E ‖y − u_0‖² = Σ_i (y_i² + E[σ(z_i)²]), z_i ~ N(0, v‖x_i‖²/d), exactly, for any λ.

    The second moment is ‖x_i‖²/2d for ReLU, where the proof of Theorem A.1 prints 1/d: an upper
    bound for ‖x_i‖ ≤ 1. That of Theorem 4.1 takes the largest, C_1.

    Args:
      x, y: data, shapes (n, d) and (n,).
      activation: σ.
      variance: v of the weights.
      printed: with 1/d for the second moment, as printed for ReLU.

    Example:
      >>> import jax
      >>> x, y = jnp.eye(2), jnp.array([1.0, -2.0])
      >>> float(expected_initial_error(x, y, activation=jax.nn.relu).value)
      5.5

    Reference: Caron et al. (2023), appendices F and G.
    """
    x, y = checks.matrix("x", x), jnp.asarray(y)
    checks.same_length(x=x, y=y)
    if printed:
        moments = jnp.full(len(x), 1 / x.shape[1], x.dtype)
        place = source("appendix F", "as printed")
        return Bound(jnp.sum(jnp.square(y) + moments), "Σ_i (y_i² + 1/d)", 1.0, place)
    squares = jnp.sum(jnp.square(x), axis=1) * (jnp.asarray(variance, x.dtype) / x.shape[1])
    moments = _second_moments(squares, activation)
    place = source("appendices F and G", "exact; printed n (C² + C_1), n (C² + 1/d)")
    return Bound(jnp.sum(jnp.square(y) + moments), "Σ_i (y_i² + E[σ(z_i)²])", 1.0, place)


# Called eagerly, the quadrature would compile anew each time.
@functools.partial(jax.jit, static_argnames="activation")
def _second_moments(squares, activation):
    return dual_activation(activation)[0](squares, squares, squares)


def initial_error(setting: Setting) -> Bound:
    """The bound on ‖y − u_0‖² with probability 1 − δ/2, 2 n (C² + C_1) / δ; ReLU: C_1 ≤ 1/d.

    Example:
      >>> float(initial_error(Setting(10, 5, 0.5, 0.1, second_moment=0.5)).value)
      300.0

    Reference: Caron et al. (2023), appendix G and equation (32).
    """
    check_setting(setting)
    value = 2 * real(setting.n) * output_square(setting) / setting.delta
    return Bound(value, "2 n (C² + C_1) / δ", 1.0, source("appendix G, equation (32)"))


def output_square(setting: Setting) -> Any:
    """C² + C_1."""
    return setting.label_bound**2 + setting.second_moment


def run_smallest_eigenvalue(setting: Setting) -> Bound:
    """What λ_min(Θ(t)) is at least along the flow, γκ_n / 4.

    Example:
      >>> run_smallest_eigenvalue(Setting(10, 5, gamma=0.5, kappa=0.08)).value
      0.01

    Reference: Caron et al. (2023), Theorems 4.1 and A.1, (a).
    """
    check_setting(setting)
    value = setting.gamma * setting.kappa / 4
    return Bound(value, "γκ_n / 4", 1.0, source("Theorems 4.1 and A.1, (a)"))


def loss_decay(times: ArrayLike, smallest_eigenvalue: ArrayLike) -> Bound:
    """The bound on L(t) / L(0) along the flow, exp(−ζt), where λ_min(Θ) ≥ ζ/2 up to time t.

    With `smallest_eigenvalue` = γκ_n/4 it is exp(−γκ_n t/2), (b) of Theorems 4.1 and A.1.

    Args:
      times: t.
      smallest_eigenvalue: ζ/2, the smallest λ_min(Θ(s)), s ≤ t.

    Example:
      >>> round(float(loss_decay(2.0, 0.25).value), 4)
      0.3679

    Reference: Caron et al. (2023), Lemma E.1; Theorems 4.1 and A.1, (b).
    """
    check(smallest_eigenvalue=smallest_eigenvalue)
    value = library(times, smallest_eigenvalue).exp(-2 * smallest_eigenvalue * real(times))
    return Bound(value, "exp(−ζt), ζ = 2 λ_min", 1.0, source("Lemma E.1"))


def node_distance(
    n: ArrayLike,
    d: ArrayLike,
    scales: ArrayLike,
    residual_norm: ArrayLike,
    smallest_eigenvalue: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on ‖w_j(t) − w_j(0)‖ along the flow, L √(nλ_j/d) ‖y − u_0‖ 2/ζ, of every node.

    With `smallest_eigenvalue` = γκ_n/4 it is R' of Lemmas E.3 and E.5.

    Args:
      n, d: samples and features.
      scales: λ_j.
      residual_norm: ‖y − u_0‖.
      smallest_eigenvalue: ζ/2, the smallest λ_min(Θ(s)), s ≤ t; the bound is inf where it is 0.
      slope: L = sup |σ'|, which the paper takes to be 1.

    Example:
      >>> float(node_distance(4, 1, 0.25, 3.0, 0.5).value)
      6.0

    Reference: Caron et al. (2023), Lemma E.1, equation (15).
    """
    check(n=n, d=d, scales=scales, residual_norm=residual_norm, slope=slope)
    check(smallest_eigenvalue=smallest_eigenvalue)
    speed = gradient_norm(n, d, scales, residual_norm, slope=slope).value
    place = source("Lemma E.1, equation (15)", "L is 1 there")
    formula = "L √(nλ_j/d) ‖y − u_0‖ 2/ζ, ζ = 2 λ_min"
    return Bound(quotient(speed, smallest_eigenvalue), formula, 1.0, place)


def gradient_norm(
    n: ArrayLike,
    d: ArrayLike,
    scales: ArrayLike,
    residual_norm: ArrayLike,
    *,
    slope: ArrayLike = 1.0,
) -> Bound:
    """The bound on ‖∂L/∂w_j‖, L √(nλ_j/d) ‖y − u‖, at any weights, for ‖x_i‖ ≤ 1.

    Args:
      n, d: samples and features.
      scales: λ_j.
      residual_norm: ‖y − u‖.
      slope: L = sup |σ'|, which the paper takes to be 1.

    Example:
      >>> float(gradient_norm(4, 1, 0.25, 3.0).value)
      3.0

    Reference: Caron et al. (2023), Lemma H.2.
    """
    check(n=n, d=d, scales=scales, residual_norm=residual_norm, slope=slope)
    root = library(n, d, scales).sqrt(real(n) * scales / d)
    place = source("Lemma H.2", "L is 1 there")
    return Bound(slope * root * residual_norm, "L √(nλ_j/d) ‖y − u‖", 1.0, place)


def largest(conditions: tuple[Bound, ...]) -> Bound:
    """The largest of several widths, as one."""
    values = [condition.value for condition in conditions]
    value = functools.reduce(library(*values).maximum, values)
    terms = ", ".join(condition.formula.removeprefix("m = ") for condition in conditions)
    return Bound(value, f"m = max({terms})", 1.0, conditions[-1].source)


def over_nodes(values: ArrayLike) -> Any:
    """The sum over the nodes, the last axis."""
    return library(values).sum(values, axis=-1)
