"""Empirical kernels of a network at given parameters: compositions of `jvp` and `vjp`."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ntkflow import checks
from ntkflow.parameters import Predicate, partition

Apply = Callable[[Any, Any], jax.Array]
Kernel = Callable[..., jax.Array]
Outputs = Literal["full", "diagonal", "trace"]


def empirical_ntk(
    apply: Apply,
    *,
    outputs: Outputs = "full",
    trainable: Predicate | None = None,
    method: Literal["auto", "jacobian"] = "auto",
) -> Kernel:
    """Build the empirical neural tangent kernel of a network.

    Θ(x1, x2)[i, j, a, b] = Σ_p ∂f_a(x1_i)/∂θ_p · ∂f_b(x2_j)/∂θ_p

    Memory: the Jacobians, (n1 + n2) · o · p numbers; time: O(n1 · n2 · o² · p).

    Args:
      apply: the network, `apply(params, x)` of shape (n, o), or (n,) for a scalar network. Each
        output may depend on its own sample alone; batch statistics must be frozen.
      outputs: "full" gives shape (n1, n2, o, o); "diagonal" (n1, n2, o), each output with
        itself; "trace" (n1, n2), the sum over outputs. A scalar network gives (n1, n2) always.
      trainable: a predicate on a parameter's path, a tuple of strings without Flax's leading
        collection name; None takes the whole `params` collection.
      method: how it is computed; "jacobian" contracts explicit Jacobians, the reference, and
        "auto" chooses.

    Returns:
      `kernel(params, x1, x2=None)`, pure; x2=None means x1 and is exactly symmetric. It has the
      parameters' dtype.

    Raises:
      ValueError: unknown `outputs` or `method`; and from the kernel: empty inputs, NaN, an
        output of another batch size or rank, a predicate that matches nothing.

    Example:
      >>> kernel = empirical_ntk(lambda params, x: x @ params["w"])
      >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
      >>> kernel({"w": jnp.zeros(2)}, x).tolist()  # linear model: the Gram matrix of x
      [[5.0, 11.0], [11.0, 25.0]]

    References:
      Jacot, Gabriel and Hongler (2018), "Neural Tangent Kernel", section 4.
    """
    checks.network(apply)
    contraction = _contraction(outputs)
    methods = {"auto": _jacobian_method, "jacobian": _jacobian_method}
    if method not in methods:
        raise ValueError(f"method is {method!r}; expected one of {sorted(methods)}.")
    compute = methods[method]

    def kernel(params: Any, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        x1, x2 = _samples(x1), None if x2 is None else _samples(x2)
        scalar = _output_shape(apply, params, x1, "x1") == ()
        if x2 is not None and (_output_shape(apply, params, x2, "x2") == ()) != scalar:
            raise ValueError("apply gives a scalar network on one of x1, x2 and not on the other.")
        theta = compute(apply, trainable, contraction, params, x1, x2)
        return _drop_output_axes(theta, scalar)

    return kernel


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
    checks.network(apply)
    contraction = _contraction(outputs)

    def kernel(params: Any, x1: ArrayLike, x2: ArrayLike | None = None) -> jax.Array:
        x1, x2 = _samples(x1), None if x2 is None else _samples(x2)
        scalar = _output_shape(apply, params, x1, "x1") == ()
        f1 = apply(params, x1)
        if x2 is None:
            f2 = f1
        else:
            _output_shape(apply, params, x2, "x2")
            f2 = apply(params, x2)
        f1, f2 = (f.reshape(len(f), -1, 1) for f in (f1, f2))
        return _drop_output_axes(contraction.product(f1, f2), scalar)

    return kernel


def ntk_product(apply: Apply, *, trainable: Predicate | None = None) -> Kernel:
    """Build the product of the empirical NTK with a vector, without the kernel itself.

    (Θ(x1, x2) v)[i, a] = Σ_jb Θ(x1, x2)[i, j, a, b] v[j, b]: one `vjp` at x2, one `jvp` at x1.

    Memory: one set of parameters; time: about three forward passes on x2 and two on x1. Samples
    may interact here, unlike in `empirical_ntk`.

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
        x1 = _samples(x1)
        x2 = x1 if x2 is None else _samples(x2)
        _output_shape(apply, params, x1, "x1")
        _output_shape(apply, params, x2, "x2")
        selected, merge = partition(params, trainable)
        f2, pullback = jax.vjp(lambda part: apply(merge(part), x2), selected)
        if jnp.shape(v) != f2.shape:
            raise ValueError(
                f"v has shape {jnp.shape(v)}; expected {f2.shape}, the shape of apply(params, x2)."
            )
        (tangent,) = pullback(jnp.asarray(v, f2.dtype))
        return jax.jvp(lambda part: apply(merge(part), x1), (selected,), (tangent,))[1]

    return product


class _Contraction(NamedTuple):
    """A sum over the last axis of two arrays (sample, output, entry), and how samples swap."""

    product: Callable[[jax.Array, jax.Array], jax.Array]
    swap: tuple[int, ...]


def _rows_times_rows(a: jax.Array, b: jax.Array) -> jax.Array:
    """a bᵀ. As an einsum over more axes XLA would copy the second Jacobian to transpose it."""
    last_axes = (((1,), (1,)), ((), ()))
    # On accelerators the default precision of a product of float32 matrices is lower.
    return jax.lax.dot_general(a, b, last_axes, precision=jax.lax.Precision.HIGHEST)


def _full(a: jax.Array, b: jax.Array) -> jax.Array:
    (n1, o, p), n2 = a.shape, len(b)
    product = _rows_times_rows(a.reshape(n1 * o, p), b.reshape(n2 * o, p))
    return product.reshape(n1, o, n2, o).transpose(0, 2, 1, 3)


def _diagonal(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum("iap,jap->ija", a, b, precision=jax.lax.Precision.HIGHEST)


def _trace(a: jax.Array, b: jax.Array) -> jax.Array:
    return _rows_times_rows(a.reshape(len(a), -1), b.reshape(len(b), -1))


_CONTRACTIONS = {
    "full": _Contraction(_full, (1, 0, 3, 2)),
    "diagonal": _Contraction(_diagonal, (1, 0, 2)),
    "trace": _Contraction(_trace, (1, 0)),
}


def _contraction(outputs: str) -> _Contraction:
    if outputs not in _CONTRACTIONS:
        raise ValueError(f"outputs is {outputs!r}; expected one of {list(get_args(Outputs))}.")
    return _CONTRACTIONS[outputs]


def _drop_output_axes(kernel: jax.Array, scalar: bool) -> jax.Array:
    return kernel.reshape(kernel.shape[:2]) if scalar else kernel


def _jacobian_method(apply, trainable, contraction, params, x1, x2):
    """The reference: explicit Jacobians, one parameter array after another."""
    selected, merge = partition(params, trainable)

    def jacobian(x):
        def one_sample(sample):
            # Samples are told apart by a batch of one: the network keeps its own batch axis.
            return jax.jacrev(lambda part: apply(merge(part), sample[None]).reshape(-1))(selected)

        return [
            leaf.reshape(*leaf.shape[:2], -1)  # (sample, output, entries of one parameter)
            for leaf in jax.tree.leaves(jax.vmap(one_sample)(x))
        ]

    jacobians1 = jacobian(x1)
    jacobians2 = jacobians1 if x2 is None else jacobian(x2)
    blocks = [contraction.product(j1, j2) for j1, j2 in zip(jacobians1, jacobians2, strict=True)]
    theta = functools.reduce(jnp.add, blocks)
    if x2 is None:  # the products are symmetric up to rounding; this makes them so exactly
        theta = (theta + theta.transpose(contraction.swap)) / 2
    return theta


def _samples(x: Any) -> Any:
    """Lists of numbers as an array; a tree stays, and is refused in words."""
    return x if isinstance(x, dict) else jnp.asarray(x)


def _output_shape(apply: Apply, params: Any, x: ArrayLike, name: str) -> tuple[int, ...]:
    """The shape of one sample's output, () or (o,), after the checks at the door."""
    if isinstance(x, dict):
        raise ValueError(f"{name} is a dict; expected an array: the order is (params, x1, x2).")
    samples = checks.same_length(**{name: x})
    checks.finite(name, x)
    output = jax.eval_shape(apply, params, x)
    shape = getattr(output, "shape", None)
    if shape is None:
        raise ValueError(
            f"apply returned {jax.tree.structure(output)}; expected one array. A Flax module "
            "with mutable collections returns a pair: wrap it and return the output alone."
        )
    if len(shape) not in (1, 2) or shape[0] != samples:
        raise ValueError(
            f"apply returned shape {shape} for {samples} samples in {name}; expected "
            f"({samples},) for a scalar network or ({samples}, outputs). Reshape further axes "
            "into one, and keep the leading axis for samples."
        )
    return shape[1:]
