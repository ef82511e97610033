"""What the theory of deep networks asks of an activation: c_σ, slopes, curvature, no polynomial."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow import checks
from ntkflow.kernels.activations import recognise, sample
from ntkflow.kernels.breaks import piecewise
from ntkflow.kernels.quadrature import Piecewise

Activation = Callable[[jax.Array], jax.Array]

_END = 13.0  # beyond it the density is below 1e-37
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_FAR = np.geomspace(40.0, 1e12, 2048)
_GRID = np.concatenate([-_FAR[::-1], np.linspace(-39.997, 39.991, 6 * 2048), _FAR])
_PEAKS = 16


def normalization(activation: Any) -> float:
    """Compute c_σ = 1 / E[σ(z)²], z ~ N(0, 1), which keeps the norms of wide layers at 1.

    Panels between −13 and 13 are halved until each agrees with its halves: kinks and jumps cost no
    accuracy. It is exact to 1e-12 where float64 is enabled, to 1e-6 elsewhere, and a number of the
    host also where a trace is under way. `activation` is compiled once, and a later call evaluates
    it alone: networks ask at every call, for which `dual_activation`, which gives the same number,
    traces too much anew.

    Args:
      activation: an elementwise function, of which only values on the host count.

    Returns:
      c_σ, a Python float.

    Raises:
      ValueError: `activation` is no elementwise function, has NaN or infinite values between −13
        and 13, is 0 there, or closes over values that are traced.

    Example:
      >>> round(normalization(jax.nn.softplus), 10), normalization(jax.nn.relu)
      (1.085486503, 2.0)

    Reference: Du (2019), equation (3.2).
    """
    checks.elementwise("activation", activation)
    compiled = jax.jit(activation)  # one compilation for each activation, which JAX remembers

    def panels(low, high):
        half = (high - low) / 2
        z = ((low + high) / 2)[:, None] + half[:, None] * _NODES
        squares = evaluate(compiled, z.ravel()).reshape(z.shape) ** 2
        return half * np.sum(_WEIGHTS * squares * np.exp(-(z**2) / 2), axis=1)

    edges = np.linspace(-_END, _END, 27)
    low, high = edges[:-1], edges[1:]
    whole, total = panels(low, high), 0.0
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    for _ in range(60):
        middle = (low + high) / 2
        halves = panels(np.append(low, middle), np.append(middle, high)).reshape(2, -1)
        parts = halves.sum(axis=0)
        rough = np.abs(parts - whole) > 4 * eps * (total + parts.sum())
        total += parts[~rough].sum()
        if not rough.any():
            break
        low, middle, high = low[rough], middle[rough], high[rough]
        low, high, whole = (
            np.append(low, middle),
            np.append(middle, high),
            halves[:, rough].ravel(),
        )
    else:
        total += whole.sum()
    second_moment = float(total / np.sqrt(2 * np.pi))
    if not 0 < second_moment < np.inf:
        raise ValueError(
            f"E[σ(z)²] of the activation is {second_moment}, z ~ N(0, 1); expected a number "
            "greater than 0 and finite."
        )
    return 1 / second_moment


class ActivationConstants(NamedTuple):
    """The numbers of an activation that the lemmas of the chapter hold in terms of.

    Attributes:
      value_at_zero: σ(0).
      lipschitz: L = sup |σ'|; inf where σ jumps or its slope is unbounded.
      smoothness: β = sup |σ''|; inf where σ' jumps or σ'' is unbounded.
      normalization: c_σ.
    """

    value_at_zero: float
    lipschitz: float
    smoothness: float
    normalization: float


def activation_constants(activation: Any) -> ActivationConstants:
    """Find the constants of Condition 3.1, and c_σ, from the function itself.

    σ' and σ'' are evaluated at 16384 points up to ±10¹², most of them in [−40, 40], at both sides
    of the breaks that `ntkflow.kernels.breaks.piecewise` finds, and on finer and finer grids around
    the largest values: with float64 enabled, errors are below 1e-10 where the supremum is attained
    in [−40, 40]. What still grows by a thousandth in the last of the decades counts as unbounded.

    Args:
      activation: an elementwise function.

    Raises:
      ValueError: as for `normalization`; or σ' or σ'' is NaN somewhere.

    Example:
      >>> value, lipschitz, smoothness, _ = activation_constants(jax.nn.softplus)
      >>> round(value, 10), round(lipschitz, 10), round(smoothness, 10)
      (0.6931471806, 1.0, 0.25)
      >>> activation_constants(jax.nn.relu)
      ActivationConstants(value_at_zero=0.0, lipschitz=1.0, smoothness=inf, normalization=2.0)

    Reference: Du (2019), Condition 3.1; the text takes 1 for both constants of softplus.
    """
    c_sigma = normalization(activation)
    found, _ = piecewise(activation)
    slope = found.differentiate(1)
    jumps, bends = (_jumps(part) for part in (found, slope))
    return ActivationConstants(
        value_at_zero=float(evaluate(jax.jit(activation), np.zeros(1))[0]),
        lipschitz=np.inf if jumps else _supremum(slope),
        smoothness=np.inf if jumps or bends else _supremum(slope.differentiate(1)),
        normalization=c_sigma,
    )


def check_activation(activation: Any) -> None:
    """Refuse polynomials, of which the theorems of the chapter do not speak.

    The Gram matrices of a polynomial may be singular, whatever the inputs. Condition 3.2 asks for
    an analytic function too; kinks pass here, and show as a smoothness of inf.

    Raises:
      ValueError: `activation` is a polynomial, of degree 64 at most, or as for `normalization`.

    Example:
      >>> check_activation(jax.nn.softplus)
      >>> check_activation(lambda z: z * z)
      Traceback (most recent call last):
      ...
      ValueError: activation is a polynomial; expected none (Condition 3.2 of Du (2019)): ...

    Reference: Du (2019), Condition 3.2 and Proposition 3.1.
    """
    checks.elementwise("activation", activation)
    family = recognise(activation)
    linear = family is not None and family.name == "rectifier" and len({*family.parameters}) == 1
    if linear or (family is not None and family.name == "polynomial"):
        raise ValueError(
            "activation is a polynomial; expected none (Condition 3.2 of Du (2019)): λ_min(K^(H)) "
            "may be 0 whatever the inputs. Take softplus, tanh or another analytic function."
        )


def _supremum(f: Piecewise) -> float:
    """sup |f| over the line, between the breaks of f."""
    compiled = jax.jit(f.function)
    eps = float(jnp.finfo(jnp.result_type(float)).eps)
    sides = [b + s * max(1.0, abs(b)) * 16 * eps for b in f.breaks for s in (-1, 1)]
    near = np.concatenate([_GRID, sides])
    on_grid = np.abs(evaluate(compiled, near))
    decades = np.abs(near[None, :]) <= 10.0 ** np.arange(8, 13)[:, None]
    largest = [on_grid[inside].max() for inside in decades]
    if not np.isfinite(largest[-1]) or largest[-1] > 1.001 * largest[-2]:
        return np.inf
    best = float(largest[-1])
    inner = on_grid[: _GRID.size][1:-1]
    peaks = (inner >= on_grid[: _GRID.size][:-2]) & (inner >= on_grid[: _GRID.size][2:])
    (where,) = np.nonzero(peaks)
    where = where[np.argsort(-inner[where])[:_PEAKS]] + 1
    if not where.size:
        return best
    low, high = _GRID[where - 1], _GRID[where + 1]
    for _ in range(4):
        points = np.linspace(low, high, 2048 // _PEAKS, axis=1)
        values = np.abs(evaluate(compiled, points.ravel())).reshape(points.shape)
        best = max(best, float(values.max()))
        rows, top = np.arange(where.size), np.clip(values.argmax(axis=1), 1, points.shape[1] - 2)
        low, high = points[rows, top - 1], points[rows, top + 1]
    return best


def _jumps(f: Piecewise) -> bool:
    """Whether f itself jumps at one of its breaks."""
    if not f.breaks:
        return False
    with jax.ensure_compile_time_eval():
        dtype = jnp.result_type(float)
        jumps = np.asarray(f.jumps(dtype))
    return bool(np.any(np.abs(jumps) > 1e4 * float(jnp.finfo(dtype).eps)))


def evaluate(compiled: Callable, points: np.ndarray) -> np.ndarray:
    """The values of an activation, wrapped by `jax.jit`, on the host; NaN is refused."""
    values = sample(compiled, points)
    if values is None:
        raise ValueError(
            "activation closes over values that are traced; expected a function whose values are "
            "known on the host: make what it closes over a plain number."
        )
    if np.isnan(values).any():
        where = points[np.isnan(values)][0]
        raise ValueError(f"activation is NaN at {where:.3g}; expected a number on the whole line.")
    return values
