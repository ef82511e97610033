"""The kernel of every parameter by itself, from the places where it enters."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntkflow.kernels.jaxprs import Variable, evaluate
from ntkflow.kernels.structured import views
from ntkflow.kernels.structured.entrances import Network, Place
from ntkflow.kernels.structured.factors import AnyFactor, Factor, OneHot, multiply
from ntkflow.kernels.structured.rules import OUTPUT, SAMPLE, Own, Position

# The axes of a kernel: samples i, j and outputs a, b, with j = i on the diagonal.
AXES = {"full": ("i", "a", "j", "b"), "diagonal": ("a", "i", "j"), "trace": ("i", "j")}
_USE = Position(0)  # of several places where a parameter enters in the same way; rules count from 1


class Jacobian(NamedTuple):
    """A part of the Jacobian by one parameter, as a product of factors."""

    view: views.View
    factors: tuple[AnyFactor, ...]


def jacobians(
    network: Network, parameters: Sequence[jax.Array], x: jax.Array
) -> list[list[Jacobian] | None]:
    """The factored Jacobian by every parameter that rules follow, at the samples `x`.

    One forward pass, and one backward pass for each output, to the results of the operations at
    which parameters enter and no further.
    """
    places = [place for own in network.places for place in own or ()]
    taps = list(dict.fromkeys(place.result for place in places))
    scales = [scale.atom for place in places for scale in place.entrance.view.scales]
    atoms = [*(place.other for place in places), *scales]
    variables = dict.fromkeys(atom for atom in atoms if isinstance(atom, Variable))
    data = len(parameters)
    sampled = [variable for variable in variables if data in variable.origins]
    fixed = [variable for variable in variables if data not in variable.origins]
    (result,) = network.program.outputs
    if not isinstance(result, Variable):  # outputs that are constants
        return [[] for _ in parameters]

    def one_sample(sample):
        def forward(shifts):
            by_tap = dict(zip(taps, shifts, strict=True))
            arrays = evaluate(network.program, [*parameters, sample], by_tap)
            return arrays[result], ([arrays[v] for v in sampled], [arrays[v] for v in fixed])

        zeros = [jnp.zeros(tap.shape, tap.dtype) for tap in taps]
        output, pullback, values = jax.vjp(forward, zeros, has_aux=True)
        basis = jnp.eye(output.size, dtype=output.dtype).reshape(-1, *output.shape)
        (cotangents,) = jax.vmap(pullback)(basis)
        return *values, cotangents

    each, all_alike, cotangents = jax.vmap(one_sample, out_axes=(0, None, 0))(x[:, None])
    known = dict(zip((*sampled, *fixed), (*each, *all_alike), strict=True))
    arriving = dict(zip(taps, cotangents, strict=True))

    def value(atom):
        return known[atom] if isinstance(atom, Variable) else jnp.asarray(atom.value)

    def jacobian(leaf: int, place: Place) -> Jacobian:
        entrance, dtype = place.entrance, parameters[leaf].dtype
        other = None if place.other is None else value(place.other)
        if other is not None and not place.sampled:
            other = other[None]
        own = entrance.factors(other, arriving[place.result])
        factors = [_of_dtype(factor, dtype) for factor in own]
        if other is not None and not place.sampled:
            factors[0] = _of_all_samples(factors[0])
        for scale in entrance.view.scales:
            at = 0 if isinstance(factors[0], Factor) else 1
            number = value(scale.atom).reshape(()).astype(dtype)
            number = 1 / number if scale.inverse else number
            factors[at] = _with_array(factors[at], _array(factors[at]) * number)
        return Jacobian(entrance.view, tuple(factors))

    return [
        None if own is None else _joined([jacobian(leaf, place) for place in own])
        for leaf, own in enumerate(network.places)
    ]


def kernel(
    one: list[Jacobian],
    two: list[Jacobian] | None,
    outputs: str,
    grams: bool,
    same: bool = False,
) -> jax.Array | float:
    """The kernel of one parameter, with `AXES`; 0.0 if it enters nowhere.

    Args:
      one, two: its Jacobians at the samples of both sides; None: the same, and symmetric.
      outputs: "full", "diagonal" or "trace".
      grams: whether products of both sides come first, as in Gram matrices, whatever it costs.
      same: whether only each sample with itself is wanted; the kernel then has no axis j.
    """
    keep = tuple(axis for axis in AXES[outputs] if not (same and axis == "j"))
    total: jax.Array | float = 0.0
    for i, left in enumerate(one):
        for j, right in enumerate(one if two is None else two):
            mirrored = two is None and i != j
            common = views.overlap(left.view, right.view)
            assert common is not None, "parameters whose views may overlap go another way"
            if (mirrored and j < i) or not common:
                continue
            part = _product(left, right, outputs, keep, grams, same)
            if mirrored:
                part = part + part.transpose(_mirror(keep))
            total = total + part
    return total


def _product(left, right, outputs, keep, grams, same):
    names = {(0, SAMPLE): "i", (1, SAMPLE): "i" if same else "j"}
    names |= {(0, OUTPUT): "a", (1, OUTPUT): "b" if outputs == "full" else "a"}

    def named(side: int) -> Callable[[Any], Any]:
        return lambda axis: names.get((side, axis), axis if isinstance(axis, Own) else (side, axis))

    ones = [factor.renamed(named(0)) for factor in left.factors]
    twos = [factor.renamed(named(1)) for factor in right.factors]
    apart = frozenset[tuple[int, int]]()
    if grams:
        pairs = [(ones, 0), (twos, len(ones))]
        apart = frozenset((k, k + 1) for side, k in pairs if len(side) == 2 and _is_outer(*side))
    return multiply([*ones, *twos], keep, apart)


def _is_outer(a: AnyFactor, b: AnyFactor) -> bool:
    """Whether each has an axis of the parameter that the other lacks: else there is no Gram."""
    first, second = ({axis for axis in f.axes if isinstance(axis, Own)} for f in (a, b))
    return bool(first - second) and bool(second - first)


def _mirror(axes: tuple[str, ...]) -> tuple[int, ...]:
    """How samples swap, and outputs with them."""
    swapped = {"i": "j", "j": "i", "a": "b", "b": "a"}
    partners = [swapped[axis] if swapped[axis] in axes else axis for axis in axes]
    return tuple(axes.index(axis) for axis in partners)


def _of_dtype(factor: AnyFactor, dtype: Any) -> AnyFactor:
    """Products of lower precision than the parameter's own would lose what it resolves."""
    if isinstance(factor, OneHot):
        return factor._replace(dtype=dtype)
    return factor._replace(array=factor.array.astype(dtype))


def _joined(parts: list[Jacobian]) -> list[Jacobian]:
    """Parts of the same form as one, with an axis for them: a recurrent network's steps."""
    alike: dict[Any, list[Jacobian]] = {}
    for part in parts:
        view = (part.view.source, part.view.ranges)
        form = tuple((f.axes, _array(f).shape) for f in part.factors)
        alike.setdefault((view, form), []).append(part)
    return [_join(group) for group in alike.values()]


def _join(group: list[Jacobian]) -> Jacobian:
    first = group[0]
    if len(group) == 1:
        return first
    columns = list(zip(*(part.factors for part in group), strict=True))
    if len(columns) == 1:
        (column,) = columns
        total = functools.reduce(jnp.add, map(_array, column))
        return first._replace(factors=(_with_array(column[0], total),))
    joined = [
        _with_array(column[0], jnp.stack(list(map(_array, column)), axis=-1), (_USE,))
        for column in columns
    ]
    return first._replace(factors=tuple(joined))


def _with_array(factor: AnyFactor, array: jax.Array, more: tuple[Any, ...] = ()) -> AnyFactor:
    """The factor with another array, and with more axes behind its own."""
    if isinstance(factor, OneHot):
        return factor._replace(places=Factor(array, (*factor.places.axes, *more)))
    return Factor(array, (*factor.axes, *more))


def _of_all_samples(factor: AnyFactor) -> AnyFactor:
    """Without the axis of samples, of length 1."""
    plain = factor.places if isinstance(factor, OneHot) else factor
    plain = Factor(plain.array[0], plain.axes[1:])
    return factor._replace(places=plain) if isinstance(factor, OneHot) else plain


def _array(factor: AnyFactor) -> jax.Array:
    return factor.places.array if isinstance(factor, OneHot) else factor.array
