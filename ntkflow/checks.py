"""What the library asks of its input, asked once, at the door.

Structure (ranks, lengths, counts) is checked always, also under a trace. Values (NaN, inf) are
checked where they can be read: under `jit` and `vmap` an array has a shape but no values yet.
"""

import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def is_concrete(x: Any) -> bool:
    """Whether the values of `x` can be read now: not under a trace, and all on this host."""
    if not isinstance(x, jax.Array):
        return True
    try:
        return x.is_fully_addressable
    except jax.errors.ConcretizationTypeError:  # a tracer has no placement to ask for
        return False


def positive_int(name: str, value: Any) -> int:
    """`value` as an int > 0, or a ValueError that names it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number <= 0:
        raise ValueError(f"{name} is {value!r}; expected a whole number greater than 0.")
    return number


def network(apply: Any) -> None:
    """Refuse what is no function `apply(params, x)`: a Flax module itself, most of all."""
    if isinstance(apply, nn.Module):
        raise ValueError(
            f"apply is a {type(apply).__name__}; expected its function `apply(params, x)`: write "
            "module.apply."
        )
    if isinstance(apply, nnx.Module):
        raise ValueError(
            f"apply is a {type(apply).__name__}; expected a function `apply(params, x)`: write "
            "apply, params = ntkflow.from_nnx(model)."
        )
    if not callable(apply):
        raise ValueError(
            f"apply is of type {type(apply).__name__}; expected a function `apply(params, x)`."
        )


def prng_key(key: Any) -> None:
    """Refuse what is no single PRNG key; None passes."""
    if key is None:
        return
    dtype, shape = getattr(key, "dtype", None), jnp.shape(key) if hasattr(key, "shape") else None
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    old_style = dtype == jnp.uint32 and shape in ((2,), (4,))  # of Threefry, and of RBG
    if not (typed and shape == ()) and not old_style:
        what = f"shape {shape} and dtype {dtype}" if dtype is not None else type(key).__name__
        raise ValueError(
            f"key is of {what}; expected one PRNG key, e.g. jax.random.key(0). A state to go on "
            "from is the fourth argument: run(params, data, key, state)."
        )


def elementwise(name: str, function: Any) -> None:
    """Refuse what is no elementwise function of floating-point arrays.

    >>> elementwise("phi", jnp.sum)
    Traceback (most recent call last):
    ...
    ValueError: phi turns an array of shape (3, 2) into ShapeDtypeStruct(shape=(), ...
    """
    if not callable(function):
        raise ValueError(
            f"{name} is {function!r}; expected an elementwise function, e.g. jax.nn.relu."
        )
    argument = jax.ShapeDtypeStruct((3, 2), jnp.result_type(float))
    try:
        result = jax.eval_shape(function, argument)
    except (TypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError(
            f"{name} {function!r} does not take an array of JAX alone ({error}); expected an "
            "elementwise function, e.g. jnp.tanh for np.tanh."
        ) from error
    if jnp.shape(result) != argument.shape:
        raise ValueError(
            f"{name} turns an array of shape {argument.shape} into {result}; expected an "
            "elementwise function, which keeps the shape."
        )
    try:  # what runs along an axis, as a softmax does, finds none in a number
        of_number = jnp.shape(jax.eval_shape(function, jnp.result_type(float).type(0)))
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{name} {function!r} takes no single number ({error}); expected an elementwise "
            "function, whose results depend on one entry each."
        ) from error
    if of_number != ():
        raise ValueError(
            f"{name} {function!r} turns a number into an array of shape {of_number}; expected an "
            "elementwise function, whose results depend on one entry each."
        )


def finite(name: str, tree: Any) -> None:
    """Refuse NaN and inf in the floating-point leaves of `tree` whose values can be read.

    >>> finite("x", jnp.array([1.0, jnp.nan]))
    Traceback (most recent call last):
    ...
    ValueError: x holds NaN or infinite values: 1 of 2, the first at index (1,); ...
    """
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        leaf = np.asarray(leaf) if isinstance(leaf, float | complex) else leaf
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.inexact) or not is_concrete(leaf):
            continue
        if _on_host(leaf):  # nothing to compile, one program for each shape
            bad = ~np.isfinite(np.asarray(leaf))
            if not bad.any():
                continue
        else:
            with jax.ensure_compile_time_eval():  # concrete, though a trace may be under way
                if bool(jnp.isfinite(leaf).all()):
                    continue
                bad = ~np.asarray(jnp.isfinite(leaf))
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name}{jax.tree_util.keystr(path)} holds NaN or infinite values: {bad.sum()} of "
            f"{bad.size}, the first at index {where}; remove or replace them before they spread."
        )


def _on_host(leaf: Any) -> bool:
    if not isinstance(leaf, jax.Array):
        return True
    return all(device.platform == "cpu" for device in leaf.devices())


def same_length(**arrays: Any) -> int:
    """The common length of the leading axes, or a ValueError that lists them; 0 is refused."""
    lengths = {}
    for name, array in arrays.items():
        shape = jnp.shape(array)
        if not shape:
            raise ValueError(f"{name} is a scalar; expected an array with a leading sample axis.")
        lengths[name] = shape[0]
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"Leading axes differ: {listed}; expected one row per sample in each.")
    (length,) = set(lengths.values())
    if length == 0:
        raise ValueError(f"{' and '.join(lengths)} hold no samples; expected at least one.")
    return length


def floating(x: Any) -> jax.Array:
    """`x` as an array in floating point: its own dtype, or JAX's float for other numbers."""
    array = jnp.asarray(x)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def matrix(name: str, x: Any) -> jax.Array:
    """`x` as a floating-point array of shape (n, d), n > 0, finite where it can be read."""
    array = jnp.asarray(x)
    if array.ndim != 2:
        raise ValueError(
            f"{name} has shape {array.shape}; expected (samples, features). "
            "For one sample write x[None, :], for images x.reshape(len(x), -1)."
        )
    if 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}; expected at least one sample.")
    array = floating(array)
    finite(name, array)
    return array
