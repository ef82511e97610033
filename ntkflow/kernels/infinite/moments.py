"""Means, second moments and tangent kernels of fields, computed when they are asked for."""

from collections.abc import Callable, Hashable
from typing import Any

import jax.numpy as jnp
from jax import Array

from ntkflow.kernels.arccos import safe_sqrt
from ntkflow.kernels.infinite import sums, views
from ntkflow.kernels.infinite.expectations import Expectations, as_function, slope_times
from ntkflow.kernels.infinite.fields import (
    Channels,
    ChannelSum,
    Contraction,
    Copies,
    Function,
    Known,
    Leaf,
    Lookup,
    Mapped,
    Node,
    Noise,
    Parameter,
    Probe,
    Product,
    Scale,
    Sum,
    Unfollowed,
)
from ntkflow.kernels.infinite.probes import proportion, split_probes
from ntkflow.kernels.infinite.views import View, own
from ntkflow.kernels.infinite.windows import slide
from ntkflow.kernels.quadrature import derivative

Form = Callable[[Node, Node, View], Array | None]


class Moments:
    """Moments of the nodes of one network on one or two data sets.

    Attributes:
      sizes: the numbers of samples; one number where x2 is x1.
      dtype: of all results.
      broken: whether the inputs hold NaN, as far as one number tells; see `views.stored`.
    """

    def __init__(self, sides: tuple[Array, ...], dtype: Any):
        self.sizes, self.dtype = tuple(map(len, sides)), dtype
        self.broken = jnp.isnan(sides[0].reshape(-1)[0].astype(dtype))
        self.expectations = Expectations()
        self._memo: dict[Hashable, Any] = {}
        self._alive: list[Any] = []  # what is told apart by identity must not be reused

    def mean(self, node: Node, side: int) -> Array | None:
        """E[y], of shape (n, *positions)."""
        return None if node.centered else self._once(self._mean, node, side)

    def second(self, a: Node, b: Node, view: View) -> Array | None:
        """E[a b'], in the axes of the view."""
        if a.leaves.isdisjoint(b.leaves):
            if a.centered or b.centered:
                return None
            ranks = len(a.shape), len(b.shape)
            left = views.left(view, self.mean(a, view.left), ranks[1])
            return views.product([left, views.right(view, self.mean(b, view.right), ranks[0])])
        return self._once(self._second, a, b, view)

    def tangent(self, a: Node, b: Node, view: View) -> Array | None:
        """E[Σ_θ ∂a ∂b'], in the axes of the view."""
        if a.leaves.isdisjoint(b.leaves):
            return None
        return self._once(self._tangent, a, b, view)

    def variance(self, node: Node, side: int) -> Array:
        """E[y²], of shape (n, *positions)."""
        second = self.second(node, node, own(side))
        return self._constant(0.0, own(side), node, node) if second is None else second

    def _once(self, compute: Callable, *arguments: Any) -> Any:
        marks = (compute.__name__, *(id(a) if isinstance(a, Node) else a for a in arguments))
        if marks not in self._memo:
            self._alive.append(arguments)
            self._memo[marks] = compute(*arguments)
        return self._memo[marks]

    def _constant(self, value: float, view: View, a: Node, b: Node) -> Array:
        positions = len(a.shape) + (len(b.shape) if view.full else 0)
        return jnp.full((1,) * (view.samples + positions), value, self.dtype)

    def _mean(self, node: Node, side: int) -> Array | None:
        match node:
            case Known():
                return node.of(side).astype(self.dtype)
            case Channels():
                return jnp.mean(node.of(side).astype(self.dtype), axis=-1)
            case Sum():
                return views.total(self.mean(t, side) for t in node.terms)
            case Scale():
                return views.product([self.mean(node.known, side), self.mean(node.node, side)])
            case Mapped():
                means = [self.mean(inner, side) for inner in node.nodes]
                return sums.mapped(own(side), node, means, side, self.dtype)
            case Function(base=Noise() as noise):
                law = self.expectations.law(node.phi, noise.bit_width)
                return self._constant(law.mean, own(side), node, node)
            case Function():
                return self.expectations.mean(node.phi)(self.variance(node.base, side))
            case Copies(source=source, count=count):
                return views.scaled(count, self.mean(source, side))
            case Product(independent=True):
                return views.product(self.mean(f, side) for f in node.factors)
            case Product(factors=(a, b)):
                return self.second(a, b, own(side))
        raise Unfollowed("the mean of a product of dependent fields", node.origin)

    # Sums, known factors and maps of positions stand outside of any bilinear form.

    def _second(self, a: Node, b: Node, view: View) -> Array | None:
        outer = self._bilinear(self.second, a, b, view)
        if outer is not NotImplemented:
            return outer
        if isinstance(a, Probe) or isinstance(b, Probe):
            return None
        if isinstance(a, Product) or isinstance(b, Product):
            return views.product(self._factors(a, b, view)[0])
        if isinstance(a, Channels) and isinstance(b, Channels):
            return sums.mean_over_channels(view, a, b, self.dtype)
        if isinstance(a, Function) and isinstance(a.base, Noise):
            return self._noise(a, b, view)
        if isinstance(a, Leaf) and isinstance(b, Leaf):
            return self._leaf(self.second, a, b, view)
        return self._dual(a, b, view)[0]

    def _tangent(self, a: Node, b: Node, view: View) -> Array | None:
        outer = self._bilinear(self.tangent, a, b, view)
        if outer is not NotImplemented:
            return outer
        if isinstance(a, Probe) and isinstance(b, Probe):
            passed = self.second(a.node, b.node, view)
            return views.product([passed, self.tangent(a.parameter, b.parameter, view)])
        if isinstance(a, Probe) or isinstance(b, Probe):
            return None
        if isinstance(a, Product) or isinstance(b, Product):
            seconds, tangents = self._factors(a, b, view)
            return views.total(
                views.product([tangent, *seconds[:i], *seconds[i + 1 :]])
                for i, tangent in enumerate(tangents)
            )
        if isinstance(a, Channels) or (isinstance(a, Function) and isinstance(a.base, Noise)):
            return None
        if isinstance(a, Leaf) and isinstance(b, Leaf):
            return self._leaf(self.tangent, a, b, view)
        return self._function_tangent(a, b, view)

    def _factors(self, a: Node, b: Node, view: View) -> tuple[list, list]:
        """Second moments and tangents of the factors of products, independent of each other."""
        ranks = len(a.shape), len(b.shape)
        seconds, tangents = [], []
        for p, q in _matched(a, b):
            if q is not None and p is None:
                seconds.append(views.right(view, self.mean(q, view.right), ranks[0]))
            elif p is not None and q is None:
                seconds.append(views.left(view, self.mean(p, view.left), ranks[1]))
            elif p is not None and q is not None:
                seconds.append(self.second(p, q, view))
            tangents.append(None if p is None or q is None else self.tangent(p, q, view))
        return seconds, tangents

    def _bilinear(self, form: Form, a: Node, b: Node, view: View) -> Any:
        ranks = len(a.shape), len(b.shape)
        if isinstance(a, Sum):
            return views.total(form(t, b, view) for t in a.terms)
        if isinstance(b, Sum):
            return views.total(form(a, t, view) for t in b.terms)
        if isinstance(a, Scale):
            known = views.left(view, self.mean(a.known, view.left), ranks[1])
            return views.product([known, form(a.node, b, view)])
        if isinstance(b, Scale):
            known = views.right(view, self.mean(b.known, view.right), ranks[0])
            return views.product([known, form(a, b.node, view)])
        if isinstance(a, Mapped) or isinstance(b, Mapped):
            return self._mapped(form, a, b, view)
        return NotImplemented

    def _mapped(self, form: Form, a: Node, b: Node, view: View) -> Array | None:
        if not view.full:
            match a, b:
                case (Mapped(map=one), Mapped(map=other)) if one is other and one.aligned:
                    pairs = zip(a.nodes, b.nodes, strict=True)
                    arrays = [form(p, q, view) for p, q in pairs]
                    return sums.mapped(view, a, arrays, view.left, self.dtype)
            return views.diagonal(view, form(a, b, view._replace(full=True)), a.shape, b.shape)
        if isinstance(a, Mapped):
            rank = len(b.shape)
            arrays = [views.swap(view, form(p, b, view), len(p.shape), rank) for p in a.nodes]
            mapped = sums.mapped(view, a, arrays, view.left, self.dtype)
            return views.swap(view, mapped, rank, len(a.shape))
        assert isinstance(b, Mapped)
        arrays = [form(a, q, view) for q in b.nodes]
        return sums.mapped(view, b, arrays, view.right, self.dtype, right=True)

    # Leaves

    def _leaf(self, form: Form, leaf: Leaf, other: Leaf, view: View) -> Array | None:
        """Second moments and tangents: of the leaf's own parameters, and through its source.

        The other is the same leaf, but for the scale of a sum over channels.
        """
        tangent = form == self.tangent
        match leaf:
            case Parameter(variance=variance, rate=rate):
                equal = views.equal_positions(view, leaf.shape, self.dtype)
                return views.scaled(rate if tangent else variance, equal)
            case Lookup(variance=variance, rate=rate, indices=indices):
                rank = len(leaf.shape)
                here = views.left(view, indices.of(view.left), rank)
                there = views.right(view, indices.of(view.right), rank)
                equal = (here == there).astype(self.dtype)
                return views.scaled(rate if tangent else variance, equal)
            case ChannelSum(source=source, scale=scale, count=count):
                assert isinstance(other, ChannelSum)
                return views.scaled(scale * other.scale * count, form(source, source, view))
            case Copies(source=source, count=count):
                alone = views.scaled(count, form(source, source, view))
                if tangent or source.centered:
                    return alone
                rank = len(source.shape)
                left = views.left(view, self.mean(source, view.left), rank)
                right = views.right(view, self.mean(source, view.right), rank)
                return views.total([alone, views.product([count * (count - 1) * left, right])])
            case Contraction(variance=variance, rate=rate):
                passed = views.scaled(variance, self._contracted(form, leaf, view))
                if not tangent:
                    return passed
                added = views.scaled(rate, self._contracted(self.second, leaf, view))
                whole = views.total([passed, added])
                if whole is None or passed is None or view.paired:
                    return whole
                return views.stored(self.broken, whole)[0]
        raise TypeError(type(leaf))

    def _contracted(self, form: Form, leaf: Contraction, view: View) -> Array | None:
        """Σ of a moment of the source over all that meets one weight."""
        source = leaf.source
        if isinstance(source, Known):
            array = None
            if form == self.second:
                array = sums.inner_products(view, source, leaf.summed, self.dtype)
        else:
            array = sums.summed(view, form(source, source, view), leaf.summed, source.shape)
        if array is None:
            return None
        if leaf.count != 1:
            array = leaf.count * array
        if leaf.window is None:
            return array
        samples = array.shape[: view.samples]
        ranks = 2 if view.full else 1
        array = jnp.broadcast_to(array, (*samples, *leaf.window.shape * ranks))
        array = slide(array, leaf.window, view.samples, view.full)
        return array.reshape(*samples, *leaf.shape * ranks)

    # Functions of fields

    def _dual(self, a: Node, b: Node, view: View) -> tuple[Array, Array]:
        return self._once(self._expectations, a, b, view)

    def _covariances(self, base1: Node, base2: Node, view: View) -> tuple[Array, Array, Array]:
        if base1 is base2 and view == own(view.left):
            q = self.variance(base1, view.left)
            return q, q, q
        ranks = len(base1.shape), len(base2.shape)
        q1 = views.left(view, self.variance(base1, view.left), ranks[1])
        q2 = views.right(view, self.variance(base2, view.right), ranks[0])
        c = self.second(base1, base2, view)
        c = self._constant(0.0, view, base1, base2) if c is None else c
        if base1 is base2 and view.left == view.right and len(self.sizes) == 1:
            # As kernels form √q₁ √q₂: the compiler may round q₁ here and there differently.
            c = views.exact_diagonal(view, c, safe_sqrt(q1) * safe_sqrt(q2), ranks[0])
        return q1, c, q2

    def _expectations(self, a: Node, b: Node, view: View) -> tuple[Array, Array]:
        """E[φ(u) ψ(v)] and E[φ'(u) ψ'(v)]."""
        (phi, base1), (psi, base2) = as_function(a), as_function(b)
        if not (base1.gaussian and base2.gaussian):
            raise Unfollowed("a function of noise, together with a field", a.origin or b.origin)
        covariances = self._covariances(base1, base2, view)
        if phi is psi:
            value, slope = self.expectations.pair(phi)(*covariances)
            value, slope = views.stored(self.broken, value, slope)
            return value, slope
        value = self.expectations.product(phi, psi)(*covariances)
        slope = self.expectations.product(derivative(phi), derivative(psi))(*covariances)
        return value, slope

    def _function_tangent(self, a: Node, b: Node, view: View) -> Array | None:
        """E[φ'(u) ψ'(v) ∂u ∂v']: ∂u is a number in the limit, but for trained scales."""
        base1, base2 = as_function(a)[1], as_function(b)[1]
        slope = self._dual(a, b, view)[1]
        plain1, probes1 = split_probes(base1)
        plain2, probes2 = split_probes(base2)
        parts = [views.product([slope, self.tangent(plain1, plain2, view)])]
        for known1, probe1 in probes1:
            for known2, probe2 in probes2:
                trained = self.tangent(probe1.parameter, probe2.parameter, view)
                if trained is None:
                    continue
                own1, own2 = proportion(plain1, probe1.node), proportion(plain2, probe2.node)
                moment: Array | None
                if own1 is not None and own2 is not None:  # ∂u = u / own
                    moment = self._weighted_slopes(a, b, view)
                elif probe1.apart_from(plain1) and probe2.apart_from(plain2):
                    own1, own2 = [], []
                    moment = views.product([slope, self.second(probe1.node, probe2.node, view)])
                else:
                    reason = "a function of a sum of fields, one of which has a trained scale"
                    raise Unfollowed(reason, a.origin or b.origin)
                rank1, rank2 = len(base1.shape), len(base2.shape)
                before = [views.left(view, self.mean(k, view.left), rank2) for k in known1]
                before += [views.right(view, self.mean(k, view.right), rank1) for k in known2]
                inside = [views.left(view, self.mean(k, view.left), rank2) for k in own1]
                inside += [views.right(view, self.mean(k, view.right), rank1) for k in own2]
                factors = [moment, trained, *before, *(1 / k for k in inside)]
                parts.append(views.product(factors))
        return views.total(parts)

    def _weighted_slopes(self, a: Node, b: Node, view: View) -> Array:
        """E[u φ'(u) v ψ'(v)]."""
        (phi, base1), (psi, base2) = as_function(a), as_function(b)
        covariances = self._covariances(base1, base2, view)
        if phi is psi:
            return self.expectations.pair(slope_times(phi))(*covariances)[0]
        return self.expectations.product(slope_times(phi), slope_times(psi))(*covariances)

    def _noise(self, a: Node, b: Node, view: View) -> Array:
        """Fresh for each sample and position: correlated where both are the same."""
        assert isinstance(a, Function)
        assert isinstance(a.base, Noise)
        assert isinstance(b, Function)
        bits = a.base.bit_width
        apart = self.expectations.law(a.phi, bits).mean * self.expectations.law(b.phi, bits).mean
        together = self.expectations.law(lambda x: a.phi(x) * b.phi(x), bits).mean
        if view.left != view.right:
            return self._constant(apart, view, a, b)
        ranks = len(a.shape), len(b.shape)
        equal = views.equal_samples(view, self.sizes[view.left], ranks, self.dtype)
        equal = equal * views.equal_positions(view, a.shape, self.dtype)
        return apart + (together - apart) * equal


def _matched(a: Node, b: Node) -> list[tuple[Node | None, Node | None]]:
    """Pair the factors of two products that depend on each other; the others stand alone."""
    left, right = (n.factors if isinstance(n, Product) else (n,) for n in (a, b))

    def partners(factor, others):
        return [other for other in others if not factor.leaves.isdisjoint(other.leaves)]

    alone = all(len(partners(factor, side)) == 1 for side in (left, right) for factor in side)
    both = [(factor, partners(factor, right)) for factor in left]
    taken = [id(p) for _, found in both for p in found]
    if not alone or any(len(found) > 1 for _, found in both) or len(set(taken)) < len(taken):
        raise Unfollowed("a product of fields that depend on each other", a.origin or b.origin)
    pairs: list[tuple[Node | None, Node | None]] = [(f, p[0] if p else None) for f, p in both]
    return pairs + [(None, other) for other in right if id(other) not in taken]
