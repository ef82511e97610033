"""The kernel's call: its arrays, its samples, and all else, by which a program is kept."""

import enum
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow import checks


class Slot(enum.Enum):
    """What stands for an array in a call."""

    X1 = enum.auto()
    X2 = enum.auto()
    OTHER = enum.auto()


class Call(NamedTuple):
    """A call of the kernel without its arrays: hashable, what a program is kept for."""

    function: Callable[..., Any]
    structure: Any
    leaves: tuple[Any, ...]
    types: tuple[type, ...]  # 1, 1.0 and True are equal, and make different programs

    def fill(self, arrays: Iterable[Any], x1: Any, x2: Any) -> Any:
        others = iter(arrays)
        take = {Slot.X1: lambda: x1, Slot.X2: lambda: x2, Slot.OTHER: lambda: next(others)}
        leaves = [take[leaf]() if isinstance(leaf, Slot) else leaf for leaf in self.leaves]
        args, kwargs = jax.tree.unflatten(self.structure, leaves)
        return self.function(*args, **kwargs)


def signature_of(function: Any) -> inspect.Signature:
    """The signature of a kernel, or a ValueError for what is none."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        signature = inspect.Signature()
    if not {"x1", "x2"} <= set(signature.parameters):
        raise ValueError(
            f"kernel is {name_of(function)}{signature}; expected a function with arguments named "
            "x1 and x2, e.g. lambda x1, x2: fully_connected_relu(x1, x2, depth=3), or "
            "empirical_ntk(apply)."
        )
    return signature


def name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def split(function: Callable[..., Any], bound: inspect.BoundArguments) -> tuple[Call, tuple]:
    """The call, with slots for its arrays, and the arrays other than the samples."""
    bound.arguments.update(x1=Slot.X1, x2=Slot.X2)
    call, arrays = without_arrays(function, bound.args, bound.kwargs)
    for array in arrays:
        _refuse_tracer("an argument", array)
    return call, arrays


def without_arrays(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Call, tuple]:
    """A call whose samples are slots already, with slots for its arrays, and these arrays."""
    leaves, structure = jax.tree.flatten((tuple(args), dict(kwargs)))
    arrays = tuple(leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray))
    constants = tuple(
        Slot.OTHER if isinstance(leaf, jax.Array | np.ndarray) else leaf for leaf in leaves
    )
    return Call(function, structure, constants, tuple(map(type, constants))), arrays


def on_host(name: str, x: Any) -> np.ndarray:
    """Samples as a NumPy array, or a ValueError where there are none, or NaN among them."""
    _refuse_tracer(name, x)
    array = np.asarray(x)
    checks.same_length(**{name: array})
    # Here, and not by JAX alone: that would copy all data to a device.
    if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
        checks.finite(name, array)
    return array


def abstract(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array, as a program sees it."""
    if isinstance(x, np.ndarray):
        return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
    return jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=getattr(x, "weak_type", False))


def check_results(results: Any, x1: Any, x2: Any) -> Any:
    """The results as they are, or a ValueError where tiles could not be put together to them."""
    symmetric = x2 is None
    n1, n2 = x1.shape[0], (x1 if symmetric else x2).shape[0]
    for leaf in jax.tree.leaves(results):
        if leaf.shape[:2] != (n1, n2):
            raise ValueError(
                f"kernel returned shape {leaf.shape} for {n1} and {n2} samples; expected "
                f"({n1}, {n2}, ...)."
            )
        if symmetric and (leaf.ndim > 4 or (leaf.ndim == 4 and leaf.shape[2] != leaf.shape[3])):
            raise ValueError(
                f"kernel returned shape {leaf.shape}; expected (n, n), (n, n, o) or (n, n, o, o), "
                "whose tiles can be mirrored. Pass x2 as well: nothing is mirrored then."
            )
    return results


def _refuse_tracer(name: str, x: Any) -> None:
    if not checks.is_concrete(x):
        raise ValueError(
            f"{name} is traced, or not on this host; expected numbers: a kernel in blocks is a "
            "loop in Python, to be called outside of jit, vmap and grad."
        )
