"""The folder of a study: its finished cells, and a manifest that says whose they are."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import re
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.studies.files import load, require, save, written_aside

if TYPE_CHECKING:
    import xarray

MANIFEST = "manifest.json"


def open_folder(folder: Path, description: dict[str, Any]) -> None:
    """Make the folder of a study, or make sure that an existing one belongs to it."""
    require("h5netcdf", "h5py")
    manifest = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder is {folder}, a file; expected a folder.")
    if not manifest.exists():
        if folder.exists() and any(folder.glob("[!.]*")):
            raise ValueError(
                f"{folder} holds files but no study ({MANIFEST}); expected an empty or new folder."
            )
        with written_aside(manifest) as temporary:
            temporary.write_text(json.dumps(description, indent=1))
        return
    try:
        known = json.loads(manifest.read_text())
    except ValueError as error:
        raise ValueError(f"{manifest} is damaged ({error}); choose another folder.") from error
    differs = [
        f"{name} (there: {known.get(name)}; here: {description.get(name)})"
        for name in known | description
        if known.get(name) != description.get(name)
    ]
    if differs:
        raise ValueError(
            f"{folder} belongs to another study. What differs: {'; '.join(differs)}. "
            "Choose another folder."
        )


def stored_cells(folder: Path, labels: dict[str, Any]) -> "list[xarray.Dataset]":
    """The finished cells of one setting; a file that cannot be read is passed over, and said."""
    cells = []
    for path in sorted((folder / "cells").glob(f"{digest(labels)}-*.nc")):
        try:
            cells.append(load(path))
        except ValueError as error:
            warnings.warn(f"{error} The study computes its seeds anew.", stacklevel=3)
    return cells


def store(folder: Path, labels: dict[str, Any], cell: "xarray.Dataset") -> None:
    """Keep a finished cell: a setting × a block of seeds."""
    name = f"{digest(labels)}-{digest(cell.seed.values.tolist())}.nc"
    save(cell.assign_attrs(setting=json.dumps(labels)), folder / "cells" / name)


def describe(experiment: Callable[..., Any], args: Any, names: list[str]) -> dict[str, Any]:
    """What makes a study this one: the experiment's code and the values it uses, and its data.

    The code is the experiment's and that of the functions and classes of its own module that it
    names; what it takes from other modules is known by name only.
    """
    function = inspect.unwrap(experiment)
    bound: Any = ()
    if isinstance(function, functools.partial):
        bound = (function.args, function.keywords)
        function = inspect.unwrap(function.func)
    uses: dict[str, str] = {}
    _uses(function, uses)
    return {
        "experiment": getattr(function, "__qualname__", type(function).__qualname__),
        "its code": _source(function),
        "bound arguments": _contents(bound),
        **uses,
        "args": _contents(args),
        "grid names": names,
        "default numbers": str(jnp.asarray(1.0).dtype),
        "key implementation": str(jax.random.key(0).dtype),
    }


def _uses(function, uses):
    """Add to `uses` what a function takes from the scopes around it, and so on from there."""
    try:
        found = inspect.getclosurevars(function)
    except TypeError:  # no Python function
        return
    for name, value in sorted({**found.globals, **found.nonlocals}.items()):
        code = inspect.unwrap(value) if callable(value) else value
        if inspect.ismodule(code) or f"the code of {name}" in uses:
            continue
        if not (inspect.isfunction(code) or inspect.isclass(code)):
            uses[f"the value of {name}"] = _contents(value)
        elif code.__module__ == function.__module__:
            uses[f"the code of {name}"] = _source(code)
            _uses(code, uses)


def _source(code):
    try:
        return digest(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError):
        return "not available"


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _contents(tree, depth=6):
    """A hash of the leaves' contents: of a function its name and what it closes over."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        total.update(jax.tree_util.keystr(path).encode())
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array | np.ndarray | np.generic) and leaf.dtype != object:
            array = np.ascontiguousarray(leaf)
            total.update(f"{array.shape} {array.dtype}".encode())
            total.update(array.tobytes())
            continue
        simple = isinstance(leaf, bool | int | float | complex | str | bytes)
        if simple or dataclasses.is_dataclass(leaf):  # as Flax's modules are
            total.update(re.sub(" at 0x[0-9a-f]+", "", repr(leaf)).encode())
            continue
        code = inspect.unwrap(leaf) if callable(leaf) else leaf
        total.update(getattr(code, "__qualname__", type(code).__qualname__).encode())
        for cell in getattr(code, "__closure__", None) or () if depth else ():
            with contextlib.suppress(ValueError):  # a name that is not bound yet
                total.update(_contents(cell.cell_contents, depth - 1).encode())
    return total.hexdigest()[:16]
