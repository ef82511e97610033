"""`run`: an experiment × seeds × a grid of settings, cell by cell."""

import datetime
import importlib.metadata
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ntkflow import checks
from ntkflow.studies import folder as folders, labels
from ntkflow.studies.files import require
from ntkflow.studies.grid import Setting, axis_labels, check_call, grid_axes, seed_list, settings
from ntkflow.studies.progress import reporter
from ntkflow.training.mapping import over_devices, over_seeds

if TYPE_CHECKING:
    import xarray


def run(
    experiment: Callable[..., Any],
    *,
    seeds: int | Sequence[int] | np.ndarray,
    grid: Mapping[str, Any] | None = None,
    args: tuple[Any, ...] = (),
    dims: Mapping[str, Sequence[str]] | None = None,
    units: Mapping[str, str] | None = None,
    time_axis: str | None = None,
    folder: str | os.PathLike[str] | None = None,
    seeds_per_cell: int | None = None,
    batch: int | None = None,
    progress: bool = True,
) -> "xarray.Dataset":
    """Run an experiment for many seeds at every setting of a grid.

    Entry (s, a, b) of a result is what `experiment(jax.random.key(s), *args, A=a, B=b)` returns,
    up to rounding: any run can be repeated alone. Seeds run on all local devices at once.

    Floating-point values of the grid are traced: the experiment's code runs once for all of
    them, and cannot branch on them. All other values (whole numbers, strings, functions) may set
    shapes or choose code: it runs once per combination of those.

    A cell, a setting × a block of seeds, that raises an exception is NaN and leaves the error's
    text in the variable `error`; a run with NaN or infinity in its results is marked in
    `diverged`. Neither stops the others. Only a study whose every cell fails raises, the first
    error.

    Args:
      experiment: `experiment(key, *args, **setting)`, returning dicts, NamedTuples or tuples of
        arrays, or a `Trajectory`, of which the history is kept. Nested names are joined by "_".
      seeds: a number n of seeds, for 0..n-1, or the seeds; seed s runs with `jax.random.key(s)`.
      grid: names of the experiment's arguments → values to try, in every combination.
      args: arrays (data, say) shared by all runs; they come after the key.
      dims: variables → names of their own axes, `{"spectrum": ("eigenvalue",)}`. An axis without
        a name is called `<variable>_axis_<i>`. Lengths that differ between settings are padded
        with NaN.
      units: names of variables and axes → units, kept in attributes; "1", a pure number, by
        default.
      time_axis: name of the axis of a trajectory's records; by default "step" where they are
        counted and "time" where they are real, as in a gradient flow.
      folder: where finished cells are kept. A study that was stopped goes on from there with
        equal results; one with more seeds, or more values in the grid, computes only what is new;
        cells that failed are tried again. A damaged file of a cell is computed anew, with a
        warning.
      seeds_per_cell: how many seeds run between two writes to the folder; None is all.
      batch: how many seeds run at once per device, as in `over_seeds`.
      progress: whether to show a bar with the time left (a line per cell where the output is no
        terminal), on the standard error stream.

    Returns:
      A dataset with the dimensions (seed, *grid, step, ...): each result a variable, `error` over
      the grid ("" where all went well), `diverged` over seeds and grid. Records at different
      steps are aligned on the union of the steps, NaN where there is none. With several hosts
      under `jax.distributed`, each process gets the whole dataset; the folder must be one that
      all of them see.

    Raises:
      ValueError: no or repeated seeds, an axis of the grid that is empty, repeats a value or is
        not an argument of the experiment, NaN or infinity in `args`, a result that holds no
        arrays, `dims` that do not fit, a folder that belongs to another study: another
        experiment, other data or other names in the grid.
      ImportError: the extra `study` is not installed.

    Example:
      >>> def experiment(key, x, width, scale):
      ...     w = jax.random.normal(key, (width, x.shape[1]))
      ...     return {"mean": scale * jnp.mean(jnp.maximum(x @ w.T, 0.0))}
      >>> grid = {"width": [64, 256], "scale": [0.5, 1.0, 2.0]}
      >>> study = run(experiment, seeds=4, grid=grid, args=(jnp.ones((5, 3)),), progress=False)
      >>> dict(study["mean"].sizes)
      {'seed': 4, 'width': 2, 'scale': 3}
      >>> alone = experiment(jax.random.key(3), jnp.ones((5, 3)), width=256, scale=0.5)["mean"]
      >>> bool(jnp.isclose(study["mean"].sel(seed=3, width=256, scale=0.5).item(), alone))
      True
    """
    require("xarray")
    seeds = seed_list(seeds)
    axes = grid_axes(grid)
    args = tuple(args) if isinstance(args, tuple | list) else (args,)
    check_call(experiment, args, list(axes))
    reserved = {"seed", "error", "diverged", *([time_axis] if time_axis else ["step", "time"])}
    if reserved & set(axes):
        raise ValueError(
            f"The grid's names {list(axes)} hold one that the dataset needs itself: "
            f"{sorted(reserved)}; rename the experiment's argument."
        )
    if seeds_per_cell is not None:
        seeds_per_cell = min(checks.positive_int("seeds_per_cell", seeds_per_cell), len(seeds))
    dims, units = dims or {}, units or {}
    grid_settings = settings(axes)
    cells: list[labels.Computed] = []
    missing = {setting.position: seeds for setting in grid_settings}
    known_dims: dict[Any, tuple[Any, ...]] = {}

    def add(setting, cell):
        cell = labels.name_axes(cell, dims, time_axis)
        if not cells:
            labels.check_names(cell, dims, units, reserved | set(axes))
        for name, variable in cell.data_vars.items():
            if known_dims.setdefault(name, variable.dims) != variable.dims:
                raise ValueError(
                    f"{name} has the axes {variable.dims} here, {known_dims[name]} before."
                )
        cells.append(labels.Computed(setting.position, cell))

    path = None if folder is None else Path(folder)
    if path is not None:
        folders.open_folder(path, folders.describe(experiment, args, list(axes)))
        for setting in grid_settings:
            found, missing[setting.position] = _resume(path, setting, seeds)
            for cell in found:
                add(setting, cell)

    errors: dict[tuple[int, ...], Exception] = {}
    plan = _plan(grid_settings, missing, seeds_per_cell)
    args = _place(args)
    static, study = None, None
    with reporter(len(plan), progress) as (done, say):
        for setting, block, size in plan:
            if study is None or static != setting.static_position:
                static, study = setting.static_position, _build(experiment, setting.static, batch)
            start, what = time.perf_counter(), f"{setting.text} seeds {block[0]}..{block[-1]}"
            try:
                cell = _compute(study, block, size, setting.floats, args)
                add(setting, cell)
            except labels.LabelError:
                raise
            except Exception as error:  # whatever a setting does, the others are computed
                errors.setdefault(setting.position, error)
                done(f"{what}: {type(error).__name__}")
                continue
            if path is not None and jax.process_index() == 0:
                folders.store(path, setting.labels, cell)
            done(f"{what}: {time.perf_counter() - start:.2f} s")
        if not cells:
            first = next(iter(errors.values()))
            first.add_note(
                "Every cell of the study failed; this is the error of the first. Floating-point "
                "values of the grid are traced: the experiment cannot branch on them."
            )
            raise first
        dataset = _dataset(cells, errors, seeds, axes, units)
        failed, unstable = len(errors), int(dataset["diverged"].sum())
        if failed:
            say(f"{failed} of {len(grid_settings)} settings failed: see the variable error.")
        if unstable:
            say(f"{unstable} of {dataset['diverged'].size} runs diverged: see diverged.")
    if path is not None and jax.process_count() > 1:
        multihost_utils.sync_global_devices("ntkflow.studies.run")  # all cells are written
    dataset.attrs |= _provenance(experiment, seeds, axes)
    return dataset


class _Cell(NamedTuple):
    """A setting × a block of seeds to compute, filled up to `size` seeds."""

    setting: Setting
    block: list[int]
    size: int


def _resume(path, setting, seeds):
    """The stored cells of a setting, each cut to seeds not yet seen, and the seeds to compute."""
    found, missing = [], list(seeds)
    for cell in folders.stored_cells(path, setting.labels):
        wanted = sorted(set(cell.seed.values.tolist()) & set(missing))
        if wanted:
            found.append(cell.sel(seed=wanted))
            missing = [seed for seed in missing if seed not in set(wanted)]
    return found, missing


def _plan(grid_settings, missing, seeds_per_cell):
    """The cells to compute: those that share a compiled program together, at one block size."""
    groups: dict[Any, list[Setting]] = {}
    for setting in grid_settings:
        groups.setdefault(setting.static_position, []).append(setting)
    plan = []
    for group in groups.values():
        size = seeds_per_cell or max(len(missing[setting.position]) for setting in group)
        size = -(-size // jax.process_count()) * jax.process_count()
        for setting in group:
            left = missing[setting.position]
            plan += [
                _Cell(setting, left[i : i + size], size) for i in range(0, len(left), size or 1)
            ]
    return plan


def _build(experiment, static, batch):
    """The compiled `study(keys, floats, *args)` of one combination of static values."""

    def cell(key, floats, *args):
        return labels.keep(experiment(key, *args, **static, **floats))

    study = over_seeds(cell, batch=batch)
    return over_devices(study) if len(jax.local_devices()) > 1 else jax.jit(study)


def _compute(study, block, size, floats, args):
    """The variables of one cell, on the host."""
    filled = [block[i % len(block)] for i in range(size)]
    keys = jnp.stack([jax.random.key(seed) for seed in filled])
    result = jax.device_get(study(keys, floats, *args))
    if jax.process_count() > 1:
        result = multihost_utils.process_allgather(result, tiled=True)
    return labels.label(result, block)


def _place(args):
    """The arrays on all local devices, once: left on the host they would travel with each cell."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("device",))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    # Python's numbers stay as they are: a float among them must not raise a float32 to float64.
    return jax.tree.map(
        lambda leaf: jax.device_put(leaf, everywhere) if hasattr(leaf, "dtype") else leaf, args
    )


def _dataset(cells, errors, seeds, axes, units):
    dataset = labels.assemble(cells, seeds, {name: axis_labels(v) for name, v in axes.items()})
    shape = tuple(map(len, axes.values()))
    row = {seed: i for i, seed in enumerate(seeds)}
    diverged, error = np.zeros((len(seeds), *shape), bool), np.full(shape, "", object)
    for cell in cells:
        rows = [row[seed] for seed in cell.variables.seed.values.tolist()]
        diverged[(rows, *cell.position)] = labels.diverged(cell.variables)
    for position, raised in errors.items():
        error[position] = f"{type(raised).__name__}: {raised}"
    dataset["diverged"] = (
        ("seed", *axes),
        diverged,
        {"long_name": "whether a result holds NaN or infinity"},
    )
    dataset["error"] = (
        tuple(axes),
        error.astype(str),
        {"long_name": "what was raised at this setting, empty where nothing was"},
    )
    for name, variable in dataset.variables.items():
        if variable.dtype.kind in "iufc":
            dataset[name].attrs["units"] = units.get(name, "1")
    return dataset


def _provenance(experiment, seeds, axes):
    try:
        version = importlib.metadata.version("ntkflow")
    except importlib.metadata.PackageNotFoundError:  # used from a checkout
        version = "unknown"
    name = getattr(experiment, "__qualname__", type(experiment).__qualname__)
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "experiment": f"{getattr(experiment, '__module__', '')}.{name}".lstrip("."),
        "seeds": json.dumps(seeds),
        "grid": json.dumps({name: axis_labels(axis) for name, axis in axes.items()}),
        "ntkflow": version,
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "devices": jax.device_count(),
    }
