"""The folder of a study: its finished cells, and a manifest that says whose they are."""

import functools
import inspect
import json
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ntkflow.files import claim
from ntkflow.fingerprint import contents, digest
from ntkflow.studies.files import load, require, save

if TYPE_CHECKING:
    import xarray


def open_folder(folder: Path, description: dict[str, Any]) -> None:
    """Make the folder of a study, or make sure that an existing one belongs to it."""
    require("h5netcdf", "h5py")
    claim(folder, "study", description)


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
        "bound arguments": contents(bound),
        **uses,
        "args": contents(args),
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
            uses[f"the value of {name}"] = contents(value)
        elif code.__module__ == function.__module__:
            uses[f"the code of {name}"] = _source(code)
            _uses(code, uses)


def _source(code):
    try:
        return digest(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError):
        return "not available"
