"""Fields: what an infinitely wide network computes, per channel, and the moments of it.

Per channel every array of a network is a function of independent Gaussian fields and of known
numbers (Yang 2019, Tensor Programs). A node of this file describes one such array, over positions
(pixels, tokens); `Moments` computes from it, for all pairs of samples,

    mean     E[y(x)]
    second   E[y(x) z(x')]
    tangent  E[Σ_θ ∂y(x)/∂θ ∂z(x')/∂θ], over the parameters θ that train.

Nothing is computed before it is asked for, so that only what the output needs ever is: the
covariances between all positions in front of a pooling, those of equal positions elsewhere.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Phi = Callable[[Array], Array]
Key = tuple[str, Any, int]


class Unfollowed(Exception):
    """What has no formula here; `origin` is the operation that made it."""

    def __init__(self, reason: str, origin: Any = None):
        super().__init__(reason)
        self.origin = origin


class Node:
    """One array of a network, per channel.

    Attributes:
      shape: sizes of the positions; 1 where the array is constant along one.
      leaves: the independent random arrays that it depends on.
      gaussian: whether it is a linear combination of Gaussian fields.
      centered: whether its mean is zero by construction.
      certain: whether its value does not vary, though it may depend on parameters that train.
      shared: whether a factor or term of it is one random number for all channels.
      origin: the operation that made it, for messages.
    """

    shape: tuple[int, ...] = ()
    leaves: frozenset[Key] = frozenset()
    gaussian = False
    centered = False
    certain = False
    shared = False
    origin: Any = None


class Numbers(Node):
    """Numbers of the samples: `values` holds one array per data set, or one that all share."""

    values: tuple[Array, ...]

    def of(self, side: int) -> Array:
        """The numbers of one data set; those that all share stand there once."""
        return self.values[min(side, len(self.values) - 1)]


class Known(Numbers):
    """Numbers that depend on the sample alone.

    Attributes:
      values: one array per data set, (n, *shape), or (1, *shape) where all samples share it.
      scalar: the number, where it is one number and known while tracing.
    """

    certain = True

    def __init__(self, values: tuple[Array, ...], scalar: float | None = None):
        self.values, self.scalar = values, scalar
        self.shape = _broadcast(v.shape[1:] for v in values)
        self.centered = scalar == 0


class Channels(Numbers):
    """Numbers that depend on the sample and on the channel: values (n, *shape, channels).

    Moments are averages over the channels.
    """

    leaves: frozenset[Key] = frozenset([("channels", 0, 0)])

    def __init__(self, values: tuple[Array, ...]):
        self.values = values
        self.shape = _broadcast(v.shape[1:-1] for v in values)


class Leaf(Node):
    """A random array of its own.

    Attributes:
      key: tells it from all others: its kind, its number among them, and with which of the channels
        of that array it begins.
    """

    centered = True

    def __init__(self, key: Key, shape: tuple[int, ...], gaussian: bool):
        self.key, self.shape, self.gaussian = key, shape, gaussian
        self.leaves = frozenset([key])

    def renamed(self, key: Key) -> "Leaf":
        """An independent copy: other channels of the same array."""
        other = copy.copy(self)
        other.key, other.leaves = key, frozenset([key])
        return other


class Parameter(Leaf):
    """A parameter that enters channel by channel, such as a bias, less its mean.

    Independent over positions and channels, the same for all samples. `variance` is of its
    entries, `rate` is the square of their derivative with respect to what trains, 0 if nothing.
    """

    def __init__(self, key, shape, gaussian, variance: float, rate: float):
        super().__init__(key, shape, gaussian or variance == 0)
        self.variance, self.rate = variance, rate
        self.certain = variance == 0


class Noise(Leaf):
    """Fresh random bits for each sample, position and channel: seen through functions alone."""

    def __init__(self, key, shape, bit_width: int):
        super().__init__(key, shape, False)
        self.bit_width = bit_width


class Lookup(Leaf):
    """Rows of a table of weights, one for each index: tokens of a vocabulary."""

    def __init__(self, key, indices: Known, gaussian, variance: float, rate: float):
        super().__init__(key, indices.shape, gaussian)
        self.indices, self.variance, self.rate = indices, variance, rate


class Contraction(Leaf):
    """Channels (and positions) of a source contracted with fresh weights: a new Gaussian field.

    Attributes:
      source: the node that is contracted.
      summed: which of its positions are contracted along with the channels.
      window: a `Window` over the remaining positions for a convolution, or None.
      count: channels that are summed.
      variance, rate: of one weight; `rate` as in `Parameter`.
    """

    def __init__(self, key, source: Node, summed, window, shape, count, variance, rate, gaussian):
        super().__init__(key, shape, gaussian)
        self.source, self.summed, self.window, self.count = source, summed, window, count
        self.variance, self.rate = variance, rate
        self.certain = variance == 0


class ChannelSum(Leaf):
    """`scale` times a sum over `count` channels of a centered node: Gaussian in the limit.

    `whole` counts all entries that were summed, positions included.
    """

    def __init__(self, key, source: Node, count: int, whole: float, scale: float = 1.0):
        super().__init__(key, source.shape, not source.shared)
        self.source, self.count, self.whole, self.scale = source, count, whole, scale

    @property
    def vanishes(self) -> bool:
        """Whether it is a mean, which goes to 0, and not a sum over √count, which does not."""
        return abs(abs(self.scale) * self.whole - 1) < 1e-4


class Copies(Leaf):
    """The sum of `count` independent copies of a node."""

    def __init__(self, key, source: Node, count: int):
        super().__init__(key, source.shape, source.gaussian)
        self.source, self.count, self.centered = source, count, source.centered
        self.shared = source.shared


class Function(Node):
    """φ of a base: a Gaussian node, or noise. `shift` is c where φ(x) = x + c."""

    def __init__(self, phi: Phi, base: Node, shift: float | None = None):
        self.phi, self.base, self.shift = phi, base, shift
        self.shape, self.leaves, self.certain = base.shape, base.leaves, base.certain
        self.shared = base.shared


class Sum(Node):
    def __init__(self, terms: tuple[Node, ...]):
        self.terms = terms
        self.shape = _broadcast(t.shape for t in terms)
        self.leaves = frozenset().union(*(t.leaves for t in terms))
        self.gaussian = all(t.gaussian for t in terms)
        self.centered = all(t.centered for t in terms)
        self.certain = all(t.certain for t in terms)
        self.shared = any(t.shared for t in terms)


class Scale(Node):
    """A node times known numbers."""

    def __init__(self, known: Known, node: Node):
        self.known, self.node = known, node
        self.shape = _broadcast([known.shape, node.shape])
        self.leaves, self.gaussian, self.centered = node.leaves, node.gaussian, node.centered
        self.certain, self.shared = node.certain, node.shared


class PositionMap(NamedTuple):
    """A linear map over positions.

    Attributes:
      function: arrays, one per input, whose last axes are positions, to such an array.
      shapes: sizes of the positions of the inputs.
      shape: and of the result.
      aligned: each result is one input position, or zero: equal positions stay equal.
      relabels: each result is one input position: functions may be taken before or after.
    """

    function: Callable[..., Array]
    shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    aligned: bool
    relabels: bool


class Mapped(Node):
    """A linear map over the positions of one node, or of several: pooling, slices, concatenation.

    `known` holds numbers of the samples that the map takes as well (attention weights).
    """

    def __init__(self, map_: PositionMap, nodes: tuple[Node, ...], known: Known | None = None):
        self.map, self.nodes, self.known = map_, nodes, known
        self.shape = map_.shape
        self.leaves = frozenset().union(*(n.leaves for n in nodes))
        self.gaussian = all(n.gaussian for n in nodes)
        self.centered = all(n.centered for n in nodes)
        self.certain = all(n.certain for n in nodes)
        self.shared = any(n.shared for n in nodes)


class Product(Node):
    """A product, channel by channel; second moments need factors that are independent."""

    def __init__(self, factors: tuple[Node, ...]):
        self.factors = factors
        self.shape = _broadcast(f.shape for f in factors)
        self.leaves = frozenset().union(*(f.leaves for f in factors))
        independent = all(
            a.leaves.isdisjoint(b.leaves) for i, a in enumerate(factors) for b in factors[:i]
        )
        self.independent = independent
        self.centered = independent and any(f.centered for f in factors)
        self.certain = all(f.certain for f in factors)
        self.shared = any(f.shared for f in factors)


class Probe(Node):
    """node · (parameter − its value): zero, with a derivative. What training a scale adds."""

    gaussian = True
    centered = True
    certain = True

    def __init__(self, node: Node, parameter: Node):
        self.node, self.parameter = node, parameter
        self.shape = _broadcast([node.shape, parameter.shape])
        self.leaves = node.leaves | parameter.leaves

    def apart_from(self, node: Node) -> bool:
        """Whether the scaled node does not depend on another."""
        return self.node.leaves.isdisjoint(node.leaves)


def _broadcast(shapes: Any) -> tuple[int, ...]:
    return tuple(max(sizes) for sizes in zip(*shapes, strict=True))


def number(value: float | bool, rank: int = 0) -> Known:
    """One number, for a node with `rank` axes of positions."""
    with jax.ensure_compile_time_eval():
        return Known((jnp.full((1,) * (1 + rank), value),), value)
