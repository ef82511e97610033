"""infinite_width: the limits of a network's kernels, from the network itself."""

import math
from collections.abc import Callable
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.infinite.context import Context
from ntkflow.kernels.infinite.fields import Node, Parameter, Sum, number
from ntkflow.kernels.infinite.laws import Law, laws
from ntkflow.kernels.infinite.moments import Moments
from ntkflow.kernels.infinite.pieces import Pieces
from ntkflow.kernels.infinite.values import Factor, Value, fresh, known_value
from ntkflow.kernels.infinite.views import View
from ntkflow.kernels.infinite.walk import Key, refuse_own_derivatives, reported, walk
from ntkflow.kernels.initializable import initializable
from ntkflow.kernels.jaxprs import trace
from ntkflow.kernels.mixing import refuse_mixing
from ntkflow.kernels.recursion import Kernels
from ntkflow.parameters import Predicate, partition

Limit = Callable[..., Kernels]


def infinite_width(module: Any, *, trainable: Predicate | None = None) -> Limit:
    """Build the NNGP and the NTK of a network in the limit of infinite width.

    Over random initialization, in the limit of many channels in every layer, for one output f:

        nngp(x, x') = E[f(x) f(x')]        ntk(x, x') = E[Σ_θ ∂f(x)/∂θ ∂f(x')/∂θ]

    The network is the one that is trained: its `apply` is traced, and the trace is followed with
    kernels in place of arrays. Dense layers, convolutions, embeddings, biases, any elementwise
    function of a field however it is written, residual sums, gates, pooling, concatenation,
    normalization over channels, dropout, and attention by known weights or by scores that are
    linear are followed, in whatever parameterization: factors in the code act as what they are,
    and variances come from the initializers. Rules:

        W h, fan-in f, entries of variance v:   nngp ← f v nngp,   ntk ← f v ntk + f nngp
        φ(h):   nngp ← E[φ(u) φ(v)],   ntk ← E[φ'(u) φ'(v)] ntk,   (u, v) ~ N(0, nngp)

    In the standard parameterization (v = σ²/f and no factor in the code, as in `flax.linen`) the
    kernel is that of the widths that the module has, to leading order: it grows with them.

    Inputs are contracted as if weights were Gaussian: exact for normal initializers, else up to
    the central limit theorem over the inputs. Sums over channels are numbers (the law of large
    numbers); a sum of products of two independent fields, scaled by 1/√channels, is Gaussian.
    Heads of attention are many, though a network may have one. Parameters that meet the inputs
    before the first layer of weights are averaged over, as those of any field.
    Dropout draws a mask for each sample, the same for a sample of x1 and itself if x2 is None.
    Only functions of Gaussian fields have a limit here, not functions of sums of activations, of
    pooled activations or of products, nor maximum pooling and softmax of random scores.

    Memory: arrays of shape (n1, n2, *positions); (n1, n2, *positions, *positions) before pooling
    or attention only. For large n see `ntkflow.kernels.in_blocks`.

    Args:
      module: a Flax Linen module, or a pair of pure functions `(init(key, x) -> params,
        apply(params, x))`. It is traced on a batch of one sample. For an NNX class `Model`:
        `init = lambda key, x: from_nnx(Model(rngs=nnx.Rngs(key)))[1]`.
      trainable: a predicate on a parameter's path, as for `empirical_ntk`; the others add nothing
        to the NTK.

    Returns:
      `kernel(x1, x2=None)` → `Kernels(nngp, ntk)`, each (n1, n2), of the dtype of the inputs.
      x2=None means x1 and gives exactly symmetric kernels. It may be jitted and differentiated.

    Raises:
      ValueError: from the kernel: an operation that cannot be followed, with the line of the
        user's code where it stands; an initializer whose entries are not independent; a network
        that mixes samples; inputs that are empty, hold NaN, or differ in shape.

    Example:
      >>> import flax.linen as nn
      >>> from ntkflow.layers import Dense
      >>> module = nn.Sequential([Dense(64, w_std=2**0.5), nn.relu, Dense(1)])
      >>> kernel = infinite_width(module)
      >>> kernel(jnp.eye(2)).ntk.round(4).tolist()
      [[1.0, 0.1592], [0.1592, 1.0]]

    References:
      Jacot, Gabriel and Hongler (2018); Arora et al. (2019), On exact computation with an
      infinitely wide neural net; Novak et al. (2020), Neural Tangents; Yang (2019, 2020), Tensor
      Programs I and II; Hron et al. (2020), Infinite attention; Sohl-Dickstein et al. (2020), On
      the infinite width limit of neural networks with a standard parameterization.
    """
    init, apply = initializable(module)
    if trainable is not None and not callable(trainable):
        raise ValueError(
            f"trainable is {trainable!r}; expected a predicate on a parameter's path, "
            'e.g. lambda path: "encoder" in path.'
        )

    @jax.jit  # the walk happens while tracing: once for each shape of the inputs
    def evaluate(x1, x2):
        return _limit(init, apply, trainable, (x1,) if x2 is None else (x1, x2))

    def kernel(x1: ArrayLike, x2: ArrayLike | None = None) -> Kernels:
        x1 = _samples("x1", x1)
        if x2 is not None:
            x2 = _samples("x2", x2)
            if x1.shape[1:] != x2.shape[1:]:
                raise ValueError(
                    f"x1 has shape {x1.shape} and x2 {x2.shape}; expected samples of one shape."
                )
        return evaluate(x1, x2)

    return kernel


def _samples(name: str, x: Any) -> jax.Array:
    array = jnp.asarray(x)
    checks.same_length(**{name: array})
    checks.finite(name, array)
    return array


def _limit(init, apply, trainable, sides) -> Kernels:
    dtype = jnp.result_type(*sides)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def sample(count):
        return jax.ShapeDtypeStruct((count, *sides[0].shape[1:]), dtype)

    params = jax.eval_shape(init, key, sample(1))
    try:
        program = trace(apply, params, sample(1), key)
    except flax.errors.ModifyScopeVariableError as error:
        raise ValueError(
            "The network changes variables while it is applied, as batch normalization in training "
            "mode does, which mixes samples. Kernels of samples need frozen statistics "
            "(use_running_average=True), or another normalization."
        ) from error
    refuse_own_derivatives(program)
    refuse_mixing(*(trace(apply, params, sample(count), key) for count in (2, 3)))
    inputs = _parameters(params, laws(init, key, sample(1)), trainable)
    inputs += [known_value([x[:, None] for x in sides]), Key()]
    kernel_dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)
    context = Context(Moments(sides, kernel_dtype))
    return _kernels(context, walk(context, program, inputs), len(sides) == 1)


def _kernels(context: Context, value: Any, symmetric: bool) -> Kernels:
    """The moments of the output, over the channels, of which parts may differ in law."""
    parts = value.parts if isinstance(value, Pieces) else (value,)
    if value.known:
        raise ValueError(
            "The network's output is a number in the limit of infinite width: it does not depend "
            "on any weights, or averages over channels without random weights after that."
        )
    if any(f.kind == "position" for part in parts for f in part.factors):
        raise ValueError(
            f"The network's output has shape {value.shape} for one sample, with positions among "
            "its axes; expected one axis of independent outputs. Flatten or pool before the last "
            "layer, or pass a function that picks one position."
        )
    sizes = context.moments.sizes
    view = View(0, len(sizes) - 1, paired=False, full=False)
    total = sum(math.prod(part.shape) for part in parts)

    def average(form):
        kernel = jnp.zeros((sizes[0], sizes[-1]), context.moments.dtype)
        for part in parts:
            moment = form(part.node, part.node, view)
            if moment is not None:
                kernel += math.prod(part.shape) / total * moment
        return (kernel + kernel.T) / 2 if symmetric else kernel

    with reported():
        return Kernels(average(context.moments.second), average(context.moments.tangent))


def _parameters(params: Any, found: Any, trainable: Predicate | None) -> list[Any]:
    """A value for each array of the parameters: fixed numbers, or independent entries."""
    selected, _ = partition(params, trainable)
    # `partition` leaves None in place of what does not train; the structure stays.
    trains = [leaf is not None for leaf in jax.tree.leaves(selected, is_leaf=lambda x: x is None)]
    every = jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, Law))
    values: list[Any] = []
    for i, (leaf, law, rate) in enumerate(zip(jax.tree.leaves(params), every, trains, strict=True)):
        fixed = law.variance == 0 and not rate
        kind: Any = "constant" if fixed else "any"
        axes = fresh([(Factor(n, kind),) if n > 1 else () for n in leaf.shape])
        mean = number(law.mean)
        node: Node = mean
        if not fixed:
            parameter = Parameter(("parameter", i, 0), (), law.normal, law.variance, float(rate))
            node = parameter if law.mean == 0 else Sum((mean, parameter))
        values.append(Value(node, axes))
    return values
