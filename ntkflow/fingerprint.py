"""Short hashes that tell whether a stored result was computed from the same values."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import re
from typing import Any

import jax
import numpy as np


def digest(value: Any) -> str:
    """The hash of what JSON can write."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def contents(tree: Any, depth: int = 6) -> str:
    """The hash of the contents of a pytree's leaves, and of their places in it.

    Arrays count by shape, dtype and every bit, numbers, strings and dataclasses by what they
    print, functions by name and by what they hold: the variables they close over, the arguments
    of a `functools.partial`, the object of a method. The code of a function does not count, nor
    does the state of any other object.

    >>> contents({"x": np.arange(3)}) == contents({"x": np.arange(3)})
    True
    >>> contents(functools.partial(max, 1)) == contents(functools.partial(max, 2))
    False
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        total.update(jax.tree_util.keystr(path).encode())
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array | np.ndarray | np.generic) and leaf.dtype != object:
            array = np.ascontiguousarray(leaf)
            total.update(f"{array.shape} {array.dtype}".encode())
            total.update(array.reshape(-1).view(np.uint8).data)
            continue
        simple = isinstance(leaf, bool | int | float | complex | str | bytes)
        if simple or dataclasses.is_dataclass(leaf):  # as Flax's modules are
            total.update(re.sub(" at 0x[0-9a-f]+", "", repr(leaf)).encode())
            continue
        code = inspect.unwrap(leaf) if callable(leaf) else leaf
        total.update(getattr(code, "__qualname__", type(code).__qualname__).encode())
        for held in _held(leaf, code) if depth else ():
            total.update(contents(held, depth - 1).encode())
    return total.hexdigest()[:16]


def _held(function, code):
    """What a function holds beside its code."""
    if isinstance(code, functools.partial):
        yield from (code.func, code.args, code.keywords)
    if inspect.ismethod(function):
        yield function.__self__
    for cell in getattr(code, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # a name that is not bound yet
            yield cell.cell_contents
