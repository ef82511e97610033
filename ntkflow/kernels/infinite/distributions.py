"""Laws of one random number: what arithmetic makes of uniform, normal and finite laws.

What has no closed form here is integrated over the random bits: `law_of_bits`.
"""

import functools
import itertools
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Law(NamedTuple):
    """Law of every entry of an array: independent, identically distributed.

    Attributes:
      mean: E[w].
      variance: Var[w].
      normal: whether the law is Gaussian; a constant counts as one, of variance 0.
    """

    mean: float
    variance: float
    normal: bool


class Uniform(NamedTuple):
    """Uniform between `low` and `high`."""

    low: float
    high: float

    def affine(self, scale: float, shift: float) -> Any:
        """The family of scale·w + shift."""
        return Uniform(*sorted((scale * self.low + shift, scale * self.high + shift)))

    def below(self, x: float) -> float:
        """P(w < x)."""
        return min(max((x - self.low) / (self.high - self.low), 0.0), 1.0)

    def law(self) -> Law:
        """Mean and variance."""
        return Law((self.low + self.high) / 2, (self.high - self.low) ** 2 / 12, False)


class Normal(NamedTuple):
    """scale·z + shift, with z ~ N(0, 1) given that low < z < high."""

    scale: float
    shift: float
    low: float
    high: float

    def affine(self, scale: float, shift: float) -> Any:
        """The family of scale·w + shift."""
        product = scale * self.scale
        if math.isclose(product, 1, rel_tol=4e-16):
            product = 1.0  # √2 · √½, in every sampler
        return self._replace(scale=product, shift=scale * self.shift + shift)

    def below(self, x: float) -> float:
        """P(w < x)."""
        z = min(max((x - self.shift) / self.scale, self.low), self.high)
        share = _between(self.low, z) / _between(self.low, self.high)
        return share if self.scale > 0 else 1 - share

    def law(self) -> Law:
        """Mean and variance: E z = (φ(low) - φ(high)) / P, E z² = 1 + (low φ(low) - …) / P."""
        mass = _between(self.low, self.high)
        ends = [(sign, z) for sign, z in ((1, self.low), (-1, self.high)) if math.isfinite(z)]
        mean = sum(sign * _density(z) for sign, z in ends) / mass
        second = 1 + sum(sign * z * _density(z) for sign, z in ends) / mass
        variance = self.scale**2 * (second - mean**2)
        return Law(self.scale * mean + self.shift, variance, not ends)


def _between(low: float, high: float) -> float:
    return (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


class Points(NamedTuple):
    """Finitely many values."""

    values: np.ndarray
    probabilities: np.ndarray

    def law(self) -> Law:
        """Mean and variance."""
        values = self.values.astype(np.float64)
        mean = float(values @ self.probabilities)
        variance = float((values - mean) ** 2 @ self.probabilities)
        return Law(mean, variance, variance == 0)


Family = Uniform | Normal | Points


def transformed(
    name: str, family: Uniform | Normal, first: bool, constants: list[float], eps: float
) -> Family | None:
    """The family of an operation on a random number and constants, where it is one of these.

    Args:
      name: of the primitive operation.
      family: of the random number.
      first: whether the random number is the first operand.
      constants: the other operands.
      eps: the rounding of the result. Samplers guard the ends of intervals with `max`, `min` and
        `nextafter`: what moves less than that much of the mass is taken for no change.

    Returns:
      The family, or None where the result has none of them.

    Example:
      >>> transformed("mul", Uniform(-1.0, 1.0), True, [3.0], 0.0)
      Uniform(low=-3.0, high=3.0)
    """
    rule = _RULES.get(name)
    return rule(family, first, eps, *constants) if rule else None


def _times(family: Any, first: bool, eps: float, c: float) -> Any:
    if c == 0:
        return Points(np.zeros(1), np.ones(1))
    return family.affine(c, 0.0)


def _less(family: Any, less: bool, x: float) -> Points:
    share = family.below(x) if less else 1 - family.below(x)
    return Points(np.array([False, True]), np.array([1 - share, share]))


def _sign(family: Any, first: bool, eps: float) -> Points:
    share = family.below(0.0)
    return Points(np.array([-1.0, 1.0]), np.array([share, 1 - share]))


def _clip(family: Any, eps: float, low: float, high: float) -> Any:
    return family if max(family.below(low), 1 - family.below(high)) <= eps else None


def _erf_inv(family: Any, first: bool, eps: float) -> Normal | None:
    if not isinstance(family, Uniform) or family.low < -1 - eps or family.high > 1 + eps:
        return None
    outside = [1 + family.low, 1 - family.high]
    low, high = (-NormalDist().inv_cdf(t / 2) if t > eps else math.inf for t in outside)
    return Normal(math.sqrt(0.5), 0.0, -low, high)


_RULES: dict[str, Callable[..., Any]] = {
    "neg": lambda family, first, eps: family.affine(-1.0, 0.0),
    "add": lambda family, first, eps, c: family.affine(1.0, c),
    "sub": lambda family, first, eps, c: family.affine(*((1.0, -c) if first else (-1.0, c))),
    "mul": _times,
    "div": lambda family, first, eps, c: family.affine(1 / c, 0.0) if first and c else None,
    "lt": lambda family, first, eps, c: _less(family, first, c),
    "le": lambda family, first, eps, c: _less(family, first, c),
    "gt": lambda family, first, eps, c: _less(family, not first, c),
    "ge": lambda family, first, eps, c: _less(family, not first, c),
    "max": lambda family, first, eps, c: _clip(family, eps, c, math.inf),
    "min": lambda family, first, eps, c: _clip(family, eps, -math.inf, c),
    "sign": _sign,
    "erf_inv": _erf_inv,
}


# Operations as the code means them, in exact arithmetic: on float64.
EXACT: dict[str, Callable[..., Any]] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide},
    **{"neg": np.negative, "abs": np.abs, "sign": np.sign, "max": np.maximum, "min": np.minimum},
    **{"sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "square": np.square},
    **{"exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "pow": np.power},
    **{"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal},
    **{"eq": np.equal, "ne": np.not_equal, "erf": np.vectorize(math.erf, [float])},
    "nextafter": lambda x, towards: x,
    "convert_element_type": lambda x: x,
    "select_n": lambda which, *cases: np.choose(which.astype(int), cases),
}


def law_of_bits(function: Callable, width: int) -> Law:
    """The law of an elementwise function of uniformly distributed random bits.

    Functions of a few values are followed to the very bits where they change: their laws are
    exact. Others are integrated on 2^20 points, which close up towards the ends 00…0 and 11…1,
    where samplers have their tails.

    Args:
      function: of an array of unsigned integers, entry by entry.
      width: of the integers, in bits: 8, 16, 32 or 64 (this one in double precision).

    Returns:
      The law of `function(bits)`.

    Raises:
      ValueError: values that are not finite, or an infinite variance.

    Example:
      >>> law_of_bits(lambda bits: bits < 3 << 30, 32)
      Law(mean=0.75, variance=0.1875, normal=False)
    """
    with jax.ensure_compile_time_eval():
        compiled = jax.jit(function)

        def values_at(bits: np.ndarray) -> np.ndarray:
            return np.asarray(compiled(jnp.asarray(bits))).astype(np.float64)

        bits, weights, tail = _grid(width)
        values = values_at(bits)
        if not np.isfinite(values).all():
            raise ValueError("takes values that are not finite")
        jumps = np.flatnonzero(values[1:] != values[:-1])
        if len(jumps) <= 64:
            return _steps(values_at, bits, values, jumps, width)
    mean = float(weights @ values)
    squares = weights * (values - mean) ** 2
    variance = float(squares.sum())
    if width >= 32 and squares[tail].sum() > variance / 4:
        raise ValueError("has an infinite variance, or one that rests on its farthest tails")
    quantiles = range(1, 64)
    scores = np.array([NormalDist().inv_cdf(k / 64) for k in quantiles])
    places = np.searchsorted(bits, np.array([k << (width - 6) for k in quantiles], bits.dtype))
    scaled = (values[places] - mean) / math.sqrt(variance)
    distance = min(abs(scaled - scores).max(), abs(scaled + scores).max())
    return Law(mean, variance, bool(distance < 1e-4))


@functools.cache
def _grid(width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ascending integers, their shares of all integers, and which are the outermost."""
    dtype = f"uint{width}"
    points, shares = [np.zeros(1, dtype)], [np.full(1, 0.5**width)]
    for power in range(width - 1):  # the integers from 2^power to twice that
        count = min(1 << power, max(256, (1 << 18) >> (width - 2 - power)))
        step = (1 << power) // count
        first = np.array((1 << power) + step // 2, dtype)
        points.append(first + np.arange(count, dtype=dtype) * np.array(step, dtype))
        shares.append(np.full(count, step * 0.5**width))
    low, share = np.concatenate(points), np.concatenate(shares)
    outer = low < 1 << (width // 2)
    return (
        np.concatenate([low, ~low[::-1]]),
        np.concatenate([share, share[::-1]]),
        np.concatenate([outer, outer[::-1]]),
    )


def _steps(
    values_at: Callable, bits: np.ndarray, values: np.ndarray, jumps: np.ndarray, width: int
) -> Law:
    """The law of a step function: each jump is found by bisection."""
    low, high = bits[jumps], bits[jumps + 1]
    for _ in range(width if len(jumps) else 0):
        middle = low + (high - low) // 2
        same = values_at(middle) == values[jumps]
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    ends = [0, *(int(end) for end in high), 1 << width]
    shares = np.array([(b - a) / (1 << width) for a, b in itertools.pairwise(ends)])
    return Points(np.concatenate([values[jumps], values[-1:]]), shares).law()
