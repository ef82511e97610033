"""Which method computes what each parameter contributes to a kernel."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from ntkflow.kernels.jaxprs import Equation, Program, trace
from ntkflow.kernels.linearized import linearized
from ntkflow.kernels.mixing import refuse_mixing
from ntkflow.kernels.structured import views
from ntkflow.kernels.structured.entrances import Network, collide, entrances, traced
from ntkflow.kernels.structured.factors import PRODUCTS_PER_NUMBER, Factor
from ntkflow.kernels.structured.method import AXES, Jacobian, jacobians, kernel
from ntkflow.kernels.structured.rules import OUTPUT, SAMPLE, Own

Outputs = Literal["full", "diagonal", "trace"]
Method = Literal["auto", "jacobian", "structured", "product"]
Function = Callable[[Sequence[jax.Array], jax.Array], jax.Array]
Parameters = Sequence[jax.Array]


def kernels(
    function: Function,
    parameters: Parameters,
    groups: Sequence[Sequence[int]],
    x1: jax.Array,
    x2: jax.Array | None,
    outputs: Outputs,
    method: Method = "auto",
    same: bool = False,
) -> list[jax.Array]:
    """The kernel of each group of parameters, of shape (n1, n2), and outputs behind.

    Args:
      function: `function(parameters, x)`, of shape (n,) or (n, o), samples apart.
      parameters: arrays, all differentiated.
      groups: the positions of each group's parameters.
      x1, x2: the samples; x2=None means x1, and results are exactly symmetric.
      outputs: which pairs of outputs.
      method: of all parameters, or "auto".
      same: whether only each sample with itself is wanted: shape (n1,), and outputs behind.
    """
    _check_samples(function, parameters, x1)
    network = entrances(traced(function, parameters, _batch(x1, 1)))
    networks = [network]
    if x2 is not None:
        alike = (x2.shape[1:], x2.dtype) == (x1.shape[1:], x1.dtype)
        other = network if alike else entrances(traced(function, parameters, _batch(x2, 1)))
        networks.append(other)
    followed = {leaf for leaf in range(len(parameters)) if _follows(networks, leaf, method)}
    counts = len(x1), len(x1 if x2 is None else x2)

    def multiplied(group):
        """The parameters of a group whose part is a column of products after another."""
        rest = [leaf for leaf in group if leaf not in followed]
        if method == "auto" and not same:
            return rest if _products_pay(network, parameters, rest, outputs, counts) else []
        return rest if method == "product" else []

    columns = [multiplied(group) for group in groups]
    alone = followed.union(*columns)
    explicit = [leaf for group in groups for leaf in group if leaf not in alone]

    def side(x, network):
        found = _explicit(function, parameters, explicit, x)
        if followed:
            own = (p if k in followed else None for k, p in enumerate(network.places))
            factored = jacobians(network._replace(places=tuple(own)), parameters, x)
            found |= {k: parts for k, parts in enumerate(factored) if parts is not None}
        return found

    one, *rest = map(side, (x1, x2), networks)
    two = rest[0] if rest else None

    def part(leaf):
        right = None if two is None else two[leaf]
        return kernel(one[leaf], right, outputs, method == "structured", same)

    size = math.prod(network.program.outputs[0].shape)
    lengths = {"i": counts[0], "j": counts[1], "a": size, "b": size}
    axes = tuple(axis for axis in AXES[outputs] if not (same and axis == "j"))
    zeros = jnp.zeros([lengths[axis] for axis in axes], jnp.result_type(*parameters))
    results = []
    for group, column in zip(groups, columns, strict=True):
        parts = [part(leaf) for leaf in group if leaf not in column]
        if column:
            parts.append(_by_columns(function, parameters, column, x1, x2, outputs))
        total = functools.reduce(jnp.add, parts, zeros)
        if x2 is None:
            total = _symmetric(total, axes)
        results.append(total.transpose([axes.index(axis) for axis in "ijab" if axis in axes]))
    return results


def _symmetric(theta: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """One half of a kernel that is symmetric up to rounding, and its mirror image.

    A mean of both, or a choice between the two, would have XLA compute each entry in two ways,
    which round differently where a product is fused into a sum. Taking entries out of one array
    computes them in one.
    """
    left, right = ("ia", "jb") if "j" in axes else ("a", "b")
    rows = [n for n, axis in zip(theta.shape, axes, strict=True) if axis in left]
    columns = [n for n, axis in zip(theta.shape, axes, strict=True) if axis in right]
    if not columns:
        return theta
    if axes[0] == "a":  # a matrix for each output: its rows are samples alone
        rows = rows[1:]
    size = math.prod(rows)
    matrices = theta.reshape(-1, size, size)
    i, j = (jax.lax.broadcasted_iota(int, (size, size), axis) for axis in (0, 1))
    lower = matrices.at[:, jnp.maximum(i, j), jnp.minimum(i, j)]
    return lower.get(mode="promise_in_bounds").reshape(theta.shape)


def _check_samples(function: Function, parameters: Parameters, x: jax.Array) -> None:
    """Refuse a network that mixes samples, by its traces on two numbers of samples.

    Loops are opened, but for those that run over the samples.
    """

    def traced_with(n: int) -> Program:
        def opened(call: Equation) -> bool:
            return call.name != "scan" or call.params["length"] != n

        return trace(function, parameters, _batch(x, n), opened=opened)

    programs = [traced_with(n) for n in _BATCHES]
    refuse_mixing(*programs)
    shapes = [program.outputs[0].shape[1:] for program in programs]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The network mixes samples: its output of one has shape {shapes[0]} in a batch of "
            f"{_BATCHES[0]} and {shapes[1]} in one of {_BATCHES[1]}."
        )


# Two lengths that axes of a network seldom have.
_BATCHES = (11, 13)


def _batch(x: jax.Array, n: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype)


def _follows(networks: Sequence[Network], leaf: int, method: Method) -> bool:
    """Whether a parameter's Jacobian is taken as a product of factors."""
    sides = [network.places[leaf] for network in networks]
    places = [side for side in sides if side is not None]
    if method not in ("auto", "structured") or len(places) < len(sides):
        return False
    if networks[0] is not networks[-1] and collide(*places):
        return False  # samples of another shape see other parts of it
    # At an operation on parameters alone the cotangent is as large as a Jacobian.
    return method == "structured" or not any(
        math.prod(place.result.shape) > network.activations
        for network, side in zip(networks, places, strict=True)
        for place in side
        if not place.varies
    )


def _products_pay(
    network: Network,
    parameters: Parameters,
    leaves: Sequence[int],
    outputs: Outputs,
    counts: tuple[int, int],
) -> bool:
    """Whether kernel-vector products take less time than explicit Jacobians."""
    if not leaves:
        return False
    n1, n2 = counts
    size = math.prod(network.program.outputs[0].shape)
    entries = size * sum(parameters[leaf].size for leaf in leaves)
    places = [place for leaf in leaves for place in network.places[leaf] or ()]
    made = {place.result for place in places if not place.varies}
    # Cotangents of arrays that are made of parameters are written on the way.
    written = entries + size * sum(math.prod(variable.shape) for variable in made)
    contraction = n1 * n2 * entries * (size if outputs == "full" else 1)
    explicit = contraction + PRODUCTS_PER_NUMBER * (n1 + n2) * written
    return 2 * n2 * size * (n1 + 1) * network.products + n2 * entries < explicit


def _explicit(
    function: Function, parameters: Parameters, leaves: Sequence[int], x: jax.Array
) -> dict[int, list[Jacobian]]:
    """Jacobians as they are."""
    if not leaves:
        return {}

    def one_sample(sample):
        # Samples are told apart by a batch of one: the network keeps its own batch axis.
        def output(own):
            return function(_replaced(parameters, leaves, own), sample[None]).reshape(-1)

        return jax.jacrev(output)([parameters[leaf] for leaf in leaves])

    found = {}
    for leaf, array in zip(leaves, jax.vmap(one_sample)(x), strict=True):
        rows = Factor(array.reshape(*array.shape[:2], -1), (SAMPLE, OUTPUT, Own(0)))
        found[leaf] = [Jacobian(views.whole(leaf, (parameters[leaf].size,)), (rows,))]
    return found


def _by_columns(function, parameters, leaves, x1, x2, outputs) -> jax.Array:
    """The kernel of some parameters together: a `vjp` and a `jvp` for each sample and output."""

    def output(own, sample):
        return function(_replaced(parameters, leaves, own), sample[None]).reshape(-1)

    selected = [parameters[leaf] for leaf in leaves]
    pushforward = linearized(lambda own: jax.vmap(output, (None, 0))(own, x1), selected).push

    def columns(sample):
        f, pull, _ = linearized(lambda own: output(own, sample), selected)
        tangents = jax.vmap(pull)(jnp.eye(f.size, dtype=f.dtype))
        return jax.vmap(pushforward)(tangents)  # (outputs b, n1, outputs a)

    theta = jax.lax.map(columns, x1 if x2 is None else x2)
    subscripts = {"full": "jbia->iajb", "diagonal": "jaia->aij", "trace": "jaia->ij"}
    return jnp.einsum(subscripts[outputs], theta)


def _replaced(parameters, leaves, own) -> list[jax.Array]:
    whole = list(parameters)
    for leaf, array in zip(leaves, own, strict=True):
        whole[leaf] = array
    return whole
