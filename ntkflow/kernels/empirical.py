"""Empirical kernels of a network at given parameters: compositions of `jvp` and `vjp`."""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.kernels.linearized import linearized
from ntkflow.kernels.structured.choice import Method, Outputs, kernels
from ntkflow.parameters import Predicate, partition, selected_paths

Apply = Callable[[Any, Any], jax.Array]
Kernel = Callable[..., jax.Array]


def empirical_ntk(
    apply: Apply,
    *,
    outputs: Outputs = "full",
    trainable: Predicate | None = None,
    method: Method = "auto",
) -> Kernel:
    """Build the empirical neural tangent kernel of a network.

    Θ(x1, x2)[i, j, a, b] = Σ_p ∂f_a(x1_i)/∂θ_p · ∂f_b(x2_j)/∂θ_p

    A parameter that enters by a matrix product, a convolution, a table, a sum or a product entry
    by entry has a Jacobian that is a product of the layer's input h and the cotangent δ at its
    result. For a dense layer its part of Θ is (h1_i · h2_j) (δ1_ia · δ2_jb): two Gram matrices.
    Such places are found in the traced computation, however the network is written.

    Methods: "structured" multiplies these factors as Gram matrices; memory (n1 + n2) o Σ_l |y_l| +
    n1 n2 o² s², where |y_l| is the size of layer l's result for one sample and s its positions (1
    for dense layers). "jacobian" contracts explicit Jacobians, (n1 + n2) o p numbers, in
    O(n1 n2 o² p). "product" takes a `vjp` and n1 `jvp`s for each of the n2 o columns, and the
    memory of o sets of parameters. "auto" counts for each parameter the operations and the numbers
    written: it multiplies factors in the cheapest order, which may be that of a Jacobian, and takes
    "jacobian" or "product" where a parameter enters otherwise.

    Args:
      apply: the network, `apply(params, x)` of shape (n, o), or (n,) for a scalar network. Each
        output may depend on its own sample alone; batch statistics must be frozen. It is
        evaluated on one sample at a time: what depends on a sample's place in the batch, as a
        mask of dropout does, is that of the first place.
      outputs: "full" gives shape (n1, n2, o, o); "diagonal" (n1, n2, o), each output with
        itself; "trace" (n1, n2), the sum over outputs. A scalar network gives (n1, n2) always.
      trainable: a predicate on a parameter's path, a tuple of strings without Flax's leading
        collection name; None takes the whole `params` collection.
      method: "auto", "structured", "jacobian" or "product". All give the same kernel.

    Returns:
      `kernel(params, x1, x2=None)`, pure, compiled once for each shape; x2=None means x1 and is
      exactly symmetric. It has the parameters' dtype.

    Raises:
      ValueError: unknown `outputs` or `method`; and from the kernel: empty inputs, NaN, an
        output of another batch size or rank, a predicate that matches nothing, a network that
        mixes samples.

    Example:
      >>> kernel = empirical_ntk(lambda params, x: x @ params["w"])
      >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> kernel({"w": jnp.zeros(2)}, x).tolist()  # linear model: the Gram matrix of x
      [[5.0, 11.0], [11.0, 25.0]]

    References:
      Jacot, Gabriel and Hongler (2018), "Neural Tangent Kernel", section 4; Novak, Sohl-Dickstein
      and Schoenholz (2022), "Fast finite width neural tangent kernel", section 3.
    """
    grouped = ntk_by_group(
        apply, group=lambda path: "all", outputs=outputs, trainable=trainable, method=method
    )

    def kernel(params: Any, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        return grouped(params, x1, x2)["all"]

    return kernel


def ntk_by_group(
    apply: Apply,
    *,
    group: Callable[[tuple[str, ...]], Hashable] = lambda path: path[:1] and path[0],
    outputs: Outputs = "full",
    trainable: Predicate | None = None,
    method: Method = "auto",
) -> Callable[..., dict[Hashable, jax.Array]]:
    """Build the empirical NTK as a sum over groups of parameters, layers for example.

    Θ = Σ_g Θ_g with Θ_g = Σ_{p in g} ∂f/∂θ_p ∂f/∂θ_pᵀ, all from one forward and one backward pass.

    Args:
      apply, outputs, trainable, method: as for `empirical_ntk`.
      group: from a parameter's path, a tuple of strings without Flax's leading collection name, to
        the name of its group; by default the first part, the layer.

    Returns:
      `kernels(params, x1, x2=None)`, a dict from names, in the order of the parameters, to kernels
      of the shapes of `empirical_ntk`.

    Raises:
      ValueError: as for `empirical_ntk`.

    Example:
      >>> kernels = ntk_by_group(lambda p, x: (x @ p["first"]) @ p["second"])
      >>> params = {"first": jnp.eye(2), "second": jnp.ones(2)}
      >>> {name: k.tolist() for name, k in kernels(params, jnp.array([[1.0, 2.0]])).items()}
      {'first': [[10.0]], 'second': [[5.0]]}
    """
    _check(apply, outputs, method)

    @jax.jit
    def compute(params, x1, x2):
        scalar = output_shape(apply, params, x1, "x1") == ()
        if x2 is not None and (output_shape(apply, params, x2, "x2") == ()) != scalar:
            raise ValueError("apply gives a scalar network on one of x1, x2 and not on the other.")
        function, leaves, paths = _flat(apply, params, trainable)
        groups: dict[Hashable, list[int]] = {}
        for i, path in enumerate(paths):
            groups.setdefault(group(path), []).append(i)
        found = kernels(function, leaves, list(groups.values()), x1, x2, outputs, method)
        found = [_drop_output_axes(theta, scalar) for theta in found]
        return list(zip(map(_Name, groups), found, strict=True))

    def by_group(
        params: Any, x1: ArrayLike, x2: ArrayLike | None = None
    ) -> dict[Hashable, jax.Array]:
        x1, x2 = samples_of("x1", x1), None if x2 is None else samples_of("x2", x2)
        return {name.value: theta for name, theta in compute(params, x1, x2)}

    return by_group


def ntk_diagonal(
    apply: Apply, *, outputs: Outputs = "full", trainable: Predicate | None = None
) -> Kernel:
    """Build the empirical NTK of each sample with itself: squared norms of its gradients.

    Θ(x, x)[i, i, a, b] = Σ_p ∂f_a(x_i)/∂θ_p · ∂f_b(x_i)/∂θ_p, in time O(n), and no n² numbers.

    Args:
      apply, trainable: as for `empirical_ntk`.
      outputs: "full" gives shape (n, o, o), "diagonal" (n, o), "trace" (n,). A scalar network
        gives (n,) always.

    Returns:
      `diagonal(params, x)`. The sum over samples, and outputs, is the trace of the kernel.

    Raises:
      ValueError: as for `empirical_ntk`.

    Example:
      >>> diagonal = ntk_diagonal(lambda w, x: x @ w)
      >>> diagonal(jnp.zeros(2), jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
      [5.0, 25.0]
    """
    _check(apply, outputs)

    @jax.jit
    def compute(params, x):
        scalar = output_shape(apply, params, x, "x") == ()
        function, leaves, paths = _flat(apply, params, trainable)
        everything = [range(len(paths))]
        (found,) = kernels(function, leaves, everything, x, None, outputs, same=True)
        return found.reshape(len(x)) if scalar else found

    def diagonal(params: Any, x: ArrayLike) -> jax.Array:
        return compute(params, samples_of("x", x))

    return diagonal


@jax.tree_util.register_static
class _Name(NamedTuple):
    """The name of a group, which passes through `jit` as it is."""

    value: Hashable


def _check(apply: Apply, outputs: str, method: str = "auto") -> None:
    checks.network(apply)
    for name, value, known in (("outputs", outputs, Outputs), ("method", method, Method)):
        if value not in get_args(known):
            raise ValueError(f"{name} is {value!r}; expected one of {list(get_args(known))}.")


def _flat(apply: Apply, params: Any, trainable: Predicate | None):
    """The network as a function of a list: itself, the arrays, and their paths."""
    selected, merge = partition(params, trainable)
    leaves, structure = jax.tree.flatten(selected)

    def function(arrays, x):
        return apply(merge(jax.tree.unflatten(structure, arrays)), x)

    return function, leaves, selected_paths(selected)


def empirical_nngp(apply: Apply, *, outputs: Outputs = "full") -> Kernel:
    """Build the empirical NNGP kernel, the second moment of the outputs at given parameters.

    K(x1, x2)[i, j, a, b] = f_a(x1_i) f_b(x2_j)

    Its mean over initializations is the covariance of the Gaussian process of wide networks.

    Args:
      apply: the network, `apply(params, x)` of shape (n, o) or (n,).
      outputs: "full", "diagonal" or "trace", with the shapes of `empirical_ntk`.

    Returns:
      `kernel(params, x1, x2=None)`, exactly symmetric where x2 is None.

    Raises:
      ValueError: as for `empirical_ntk`.

    Example:
      >>> kernel = empirical_nngp(lambda params, x: x @ params["w"])
      >>> kernel({"w": jnp.array([1.0, 1.0])}, jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
      [[9.0, 21.0], [21.0, 49.0]]
    """
    _check(apply, outputs)

    def kernel(params: Any, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        x1, x2 = samples_of("x1", x1), None if x2 is None else samples_of("x2", x2)
        scalar = output_shape(apply, params, x1, "x1") == ()
        f1 = apply(params, x1)
        if x2 is None:
            f2 = f1
        else:
            output_shape(apply, params, x2, "x2")
            f2 = apply(params, x2)
        f1, f2 = (f.reshape(len(f), -1) for f in (f1, f2))
        theta = jnp.einsum(_NNGP[outputs], f1, f2, precision=jax.lax.Precision.HIGHEST)
        if x2 is None:  # under jit the two sides of the product may be rounded differently
            theta = (theta + theta.transpose(_SWAPPED[theta.ndim])) / 2
        return _drop_output_axes(theta, scalar)

    return kernel


def ntk_product(apply: Apply, *, trainable: Predicate | None = None) -> Kernel:
    """Build the product of the empirical NTK with a vector, without the kernel itself.

    (Θ(x1, x2) v)[i, a] = Σ_jb Θ(x1, x2)[i, j, a, b] v[j, b]: one `vjp` at x2, and one at x1
    transposed, which is a `jvp`.

    Memory: one set of parameters, and what a backward pass keeps; time: about three forward passes
    on x2 and two on x1, or four if they are the same. Samples may interact here, unlike in
    `empirical_ntk`.

    Args:
      apply: the network, `apply(params, x)` of shape (n, o) or (n,).
      trainable: as for `empirical_ntk`.

    Returns:
      `product(params, x1, x2, v)`: `v` has the shape of `apply(params, x2)`, the result that of
      `apply(params, x1)`; x2=None means x1.

    Raises:
      ValueError: from the product, as for `empirical_ntk`; and a `v` of another shape.

    Example:
      >>> product = ntk_product(lambda params, x: x @ params["w"])
      >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> product({"w": jnp.zeros(2)}, x, x, jnp.array([1.0, 0.0])).tolist()
      [5.0, 11.0]
    """

    checks.network(apply)

    def product(params: Any, x1: ArrayLike, x2: ArrayLike | None, v: ArrayLike) -> jax.Array:
        x1, x2 = samples_of("x1", x1), None if x2 is None else samples_of("x2", x2)
        selected, merge = partition(params, trainable)

        def at(x, name):
            output_shape(apply, params, x, name)
            return linearized(lambda part: apply(merge(part), x), selected)

        f1 = at(x1, "x1")
        f2 = f1 if x2 is None else at(x2, "x2")
        shape, dtype = f2.value.shape, f2.value.dtype
        if jnp.shape(v) != shape:
            raise ValueError(
                f"v has shape {jnp.shape(v)}; expected {shape}, the shape of apply(params, x2)."
            )
        return f1.push(f2.pull(jnp.asarray(v, dtype)))

    return product


_NNGP = {"full": "ia,jb->ijab", "diagonal": "ia,ja->ija", "trace": "ia,ja->ij"}
_SWAPPED = {2: (1, 0), 3: (1, 0, 2), 4: (1, 0, 3, 2)}


def _drop_output_axes(kernel: jax.Array, scalar: bool) -> jax.Array:
    return kernel.reshape(kernel.shape[:2]) if scalar else kernel


def samples_of(name: str, x: Any) -> jax.Array:
    """Samples as an array, after the checks of their values at the door."""
    if isinstance(x, dict):
        raise ValueError(f"{name} is a dict; expected an array: the order is (params, x1, x2).")
    x = jnp.asarray(x)
    checks.same_length(**{name: x})
    checks.finite(name, x)
    if jax.typeof(x).manual_axis_type.varying:
        raise ValueError(
            f"{name} differs between the devices of a jax.shard_map that checks what varies: "
            "gradients of parameters would be summed over devices there. Pass check_vma=False."
        )
    return x


def output_shape(apply: Apply, params: Any, x: jax.Array, name: str) -> tuple[int, ...]:
    """The shape of one sample's output, () or (o,)."""
    samples = len(x)
    output = jax.eval_shape(apply, params, x)
    shape = getattr(output, "shape", None)
    if shape is None:
        raise ValueError(
            f"apply returned {jax.tree.structure(output)}; expected one array. A Flax module "
            "with mutable collections returns a pair: wrap it and return the output alone."
        )
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise ValueError(f"apply returned numbers of type {output.dtype}; expected real ones.")
    if len(shape) not in (1, 2) or shape[0] != samples:
        raise ValueError(
            f"apply returned shape {shape} for {samples} samples in {name}; expected "
            f"({samples},) for a scalar network or ({samples}, outputs). Reshape further axes "
            "into one, and keep the leading axis for samples."
        )
    if 0 in shape:
        raise ValueError(f"apply returned shape {shape}; expected at least one output.")
    return shape[1:]
