"""From an experiment's result, a pytree, to named variables: within a cell and over the grid."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntkflow.parameters import path_names
from ntkflow.studies.files import require
from ntkflow.training.descent import Trajectory

if TYPE_CHECKING:
    import xarray


class LabelError(ValueError):
    """A result that cannot be labelled: the study is ill-posed, not one of its cells."""


class Computed(NamedTuple):
    """A cell that is done: where it stands in the grid, and its variables over (seed, ...)."""

    position: tuple[int, ...]
    variables: "xarray.Dataset"


def keep(result: Any) -> Any:
    """What of an experiment's result is stored: a trajectory loses its parameters and state."""

    def lean(node):
        if isinstance(node, Trajectory):
            node = node._replace(params=None, state=None)
            return jax.tree.map(numbers, node)
        return numbers(node)

    def numbers(leaf):
        dtype = getattr(leaf, "dtype", None)
        if dtype is None and not isinstance(leaf, bool | int | float | complex):
            raise LabelError(
                f"The experiment's result holds a {type(leaf).__name__}; expected dicts, "
                "NamedTuples and Trajectories of arrays."
            )
        if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
            raise LabelError(
                f"The experiment's result holds an array of {dtype}; expected numbers. Leave a "
                "random key out, or return jax.random.key_data(key)."
            )
        return leaf

    result = jax.tree.map(lean, result, is_leaf=_is_trajectory)
    if not jax.tree.leaves(result):
        raise LabelError(
            "The experiment returns no arrays; expected a dict, NamedTuple or Trajectory of them."
        )
    return result


def label(result: Any, seeds: list[int]) -> "xarray.Dataset":
    """Name the arrays of a cell, which all have a leading seed axis, by their paths.

    A trajectory's history gets the axis `step`; any other axis is `<variable>_axis_<i>`.
    """
    xarray = require("xarray")
    entries = jax.tree_util.tree_flatten_with_path(result, is_leaf=_is_trajectory)[0]
    trajectories = sum(_is_trajectory(leaf) for _, leaf in entries)
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {"seed": seeds}

    def add(path, values, axes):
        name = _name(path) or "result"
        if name in variables:
            raise LabelError(
                f"Two results are named {name!r}; return a dict that gives each its own name."
            )
        values = _readable(values)[: len(seeds)]
        named = [f"{name}_axis_{i}" for i in range(values.ndim - 1 - len(axes))]
        variables[name] = (["seed", *axes, *named], values)

    for path, leaf in entries:
        if not _is_trajectory(leaf):
            add(path, leaf, [])
            continue
        prefix = _name(path)
        axis = f"{prefix}_step" if prefix and trajectories > 1 else "step"
        steps = np.asarray(leaf.steps)[: len(seeds)]
        if (steps != steps[:1]).any() or axis in coordinates:
            raise LabelError(
                "The steps of a trajectory differ between seeds, or two trajectories share one "
                "name; expected records at the same steps, and a dict with a name for each."
            )
        coordinates[axis] = steps[0]
        for inner, values in jax.tree_util.tree_flatten_with_path(leaf.history)[0]:
            add((*path, *inner), values, [axis])
    clash = sorted(set(variables) & set(coordinates))
    if clash:
        raise LabelError(f"The results {clash} are named like an axis; give them other names.")
    return xarray.Dataset(variables, coordinates)


def name_axes(
    cell: "xarray.Dataset", dims: Mapping[str, Sequence[str]], time_axis: str | None
) -> "xarray.Dataset":
    """Put the user's names on a cell's axes, in place of `step` and `<variable>_axis_<i>`."""
    xarray = require("xarray")
    times = {
        str(axis): str(axis).removesuffix("step")
        + (time_axis or ("time" if values.dtype.kind == "f" else "step"))
        for axis, values in cell.coords.items()
        if axis != "seed"
    }
    variables = {}
    for name, variable in cell.data_vars.items():
        own = [axis for axis in variable.dims[1:] if axis not in times]
        chosen = dims.get(str(name), own)
        if isinstance(chosen, str) or len(set(chosen)) != len(own) or len(chosen) != len(own):
            shape = variable.shape[variable.ndim - len(own) :]
            raise LabelError(
                f"dims[{name!r}] is {chosen!r}; expected {len(own)} distinct names in a sequence: "
                f"beside seeds and records each result has the shape {shape}."
            )
        records = [times[str(axis)] for axis in variable.dims[1:] if axis in times]
        variables[name] = (["seed", *records, *chosen], variable.values)
    coordinates = {
        times.get(str(axis), axis): values.values for axis, values in cell.coords.items()
    }
    try:
        return xarray.Dataset(variables, coordinates)
    except ValueError as error:
        raise LabelError(f"dims gives one name to axes of different lengths: {error}") from error


def check_names(
    cell: "xarray.Dataset",
    dims: Mapping[str, Sequence[str]],
    units: Mapping[str, str],
    reserved: Iterable[str],
) -> None:
    """Refuse names that no result has, and results named like what the dataset holds itself."""
    results = [str(name) for name in cell.data_vars]
    clash = sorted(set(results) & set(reserved))
    if clash:
        raise LabelError(
            f"The results {clash} are named like an axis, or like `error` and `diverged`, which "
            "every study has; give them other names."
        )
    taken = {axis for name in results for axis in dims.get(name, ())} & {*results, *reserved}
    if taken:
        raise LabelError(f"dims names axes {sorted(taken)}, which are names of something else.")
    unknown = sorted((set(dims) - set(results)) | (set(units) - {*results, *cell.dims, *reserved}))
    if unknown:
        raise LabelError(f"dims and units name {unknown}; the experiment's results are {results}.")


def diverged(cell: "xarray.Dataset") -> np.ndarray:
    """Which seeds of a cell have a NaN or an infinity in any floating-point result."""
    found = np.zeros(cell.sizes["seed"], bool)
    for variable in cell.data_vars.values():
        if variable.dtype.kind in "fc":
            finite = np.isfinite(variable.values)
            found |= ~finite.reshape(len(found), -1).all(axis=1)
    return found


def assemble(
    cells: list[Computed], seeds: list[int], grid: dict[str, list[Any]]
) -> "xarray.Dataset":
    """Lay the cells out over (seed, *grid, ...): NaN where a cell has nothing to say.

    Axes with a coordinate (steps) are aligned on the union of their values; others are padded to
    the longest. Whole numbers and booleans stay what they are where nothing is missing.
    """
    xarray = require("xarray")
    row = {seed: i for i, seed in enumerate(seeds)}
    dims: dict[str, tuple[str, ...]] = {}
    stored: dict[str, list[np.ndarray]] = {}
    sizes: dict[str, int] = {}
    for _, found in cells:
        for axis, values in found.coords.items():
            if axis != "seed":
                stored.setdefault(str(axis), []).append(values.values)
        for name, variable in found.data_vars.items():
            dims.setdefault(str(name), tuple(map(str, variable.dims[1:])))
        for axis, size in found.sizes.items():
            sizes[str(axis)] = max(size, sizes.get(str(axis), 0))
    coordinates = {axis: np.unique(np.concatenate(values)) for axis, values in stored.items()}
    sizes |= {axis: len(values) for axis, values in coordinates.items()}

    variables = {}
    for name, axes in dims.items():
        holders = [cell for cell in cells if name in cell.variables]
        arrays = [cell.variables[name].values for cell in holders]
        shape = (len(seeds), *map(len, grid.values()), *(sizes[axis] for axis in axes))
        dtype = np.result_type(*(array.dtype for array in arrays))
        complete = sum(array.size for array in arrays) == np.prod(shape)
        if not complete and dtype.kind not in "fc":
            dtype = np.dtype(float)
        full = np.empty(shape, dtype) if complete else np.full(shape, np.nan, dtype)
        for cell, array in zip(holders, arrays, strict=True):
            where = [
                [row[int(seed)] for seed in cell.variables.seed],
                *([i] for i in cell.position),
            ]
            for axis, length in zip(axes, array.shape[1:], strict=True):
                values = cell.variables.coords.get(axis, range(length))
                where.append(np.searchsorted(coordinates.get(axis, values), values))
            full[np.ix_(*where)] = array.reshape(
                array.shape[0], *(1 for _ in grid), *array.shape[1:]
            )
        variables[name] = (["seed", *grid, *axes], full)
    return xarray.Dataset(variables, {"seed": seeds, **grid, **coordinates})


def _is_trajectory(node):
    return isinstance(node, Trajectory)


def _name(path):
    # Positions in a tuple say nothing to a reader: what stands there has a name or gets "result".
    named = [entry for entry in path if not isinstance(entry, jax.tree_util.SequenceKey)]
    return "_".join(path_names(tuple(named))).replace("/", "_")


def _readable(values):
    """As NumPy; the narrow floats of accelerators, which files do not know, as float32."""
    narrow = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.kind == "V"
    return np.asarray(values, np.float32) if narrow else np.asarray(values)
