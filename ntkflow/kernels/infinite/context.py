"""What the rules of operations share along one network."""

from typing import Any

import jax.numpy as jnp

from ntkflow.kernels.infinite.fields import Key, Known, Node, Parameter, Unfollowed, number
from ntkflow.kernels.infinite.moments import Moments

Params = dict[str, Any]


class Context:
    """What the rules share along one network: moments, and which weights have been used."""

    def __init__(self, moments: Moments) -> None:
        self.moments = moments
        self.used: set[Any] = set()
        self.fresh = 0
        self.parts: dict[Any, set[tuple[int, int]]] = {}
        self.sums: dict[Node, Key] = {}

    def take(self, parameter: Parameter) -> None:
        if parameter.key in self.used:
            raise Unfollowed(
                "a parameter that enters at two places (tied or recurrent weights): the fields "
                "behind are not independent"
            )
        self.used.add(parameter.key)

    def take_part(self, node: Node, axis: int, start: int, stop: int) -> None:
        """Mark a slice of parameters as used: slices that overlap are not independent."""
        for kind, which, *_ in node.leaves:
            taken = self.parts.setdefault((kind, which, axis), set())
            if any(a < stop and start < b and (a, b) != (start, stop) for a, b in taken):
                raise Unfollowed("overlapping slices of one parameter")
            taken.add((start, stop))

    def average(self, node: Node, count: int) -> Known:
        """`count` times the mean over channels: a number, by the law of large numbers."""
        values = []
        for side in range(len(self.moments.sizes)):
            mean = self.moments.mean(node, side)
            if mean is None:
                return number(0.0, len(node.shape))
            values.append(count * jnp.broadcast_to(mean, (len(mean), *node.shape)))
        return Known(tuple(values))

    def key_of_sum(self, node: Node) -> Key:
        """A key for the sum over the channels of a node: one, however often it is written."""
        if node not in self.sums:
            self.sums[node] = self.new("sum over channels")
        return self.sums[node]

    def new(self, name: str) -> Key:
        """A key for a field that has none of its own."""
        self.fresh += 1
        return name, self.fresh, 0
