"""Gaussian expectations of the functions in a network, each built once."""

from collections.abc import Callable, Hashable
from typing import Any

from jax import Array

from ntkflow.kernels.arccos import ratio
from ntkflow.kernels.dual import dual_pair, mean, pair_expectation
from ntkflow.kernels.infinite.distributions import Law, law_of_bits
from ntkflow.kernels.infinite.fields import Function, Node, Phi
from ntkflow.kernels.jaxprs import fingerprint
from ntkflow.kernels.quadrature import derivative


class Expectations:
    """Rules for elementwise functions: layers that compute the same share one."""

    def __init__(self) -> None:
        self._rules: dict[Hashable, Any] = {}

    def _built(self, rule: Callable, *phis: Phi) -> Callable:
        mark = (rule.__name__, *map(fingerprint, phis))
        if mark not in self._rules:
            self._rules[mark] = rule(*phis)
        return self._rules[mark]

    def law(self, phi: Phi, width: int) -> Law:
        """The law of φ of random bits."""
        mark = ("law", width, fingerprint(lambda x: phi(x.astype(f"uint{width}"))))
        if mark not in self._rules:
            self._rules[mark] = law_of_bits(phi, width)
        return self._rules[mark]

    def mean(self, phi: Phi) -> Callable[[Array], Array]:
        """q ↦ E[φ(u)], u ~ N(0, q)."""
        return self._built(mean, phi)

    def pair(self, phi: Phi) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
        """(q₁, c, q₂) ↦ E[φ(u) φ(v)] and E[φ'(u) φ'(v)]."""
        return self._built(dual_pair, phi)

    def product(self, phi: Phi, psi: Phi) -> Callable[[Array, Array, Array], Array]:
        """(q₁, c, q₂) ↦ E[φ(u) ψ(v)]."""
        if phi is identity:  # E[u | v] = v c / q₂
            average = self.mean(lambda z: z * psi(z))
            return lambda q1, c, q2: ratio(c, q2) * average(q2)
        if psi is identity:
            average = self.mean(lambda z: z * phi(z))
            return lambda q1, c, q2: ratio(c, q1) * average(q1)
        return self._built(pair_expectation, phi, psi)


def identity(x: Array) -> Array:
    """φ(x) = x."""
    return x


def slope_times(phi: Phi) -> Phi:
    """z ↦ z φ'(z)."""
    return lambda z: z * derivative(phi)(z)


def as_function(node: Node) -> tuple[Phi, Node]:
    """A node as a function of a base; a Gaussian node is the identity of itself."""
    return (node.phi, node.base) if isinstance(node, Function) else (identity, node)
