"""What a study is asked to do: its seeds, and the settings of its grid."""

import collections
import inspect
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ntkflow import checks

Label = int | float | bool | str


class Setting(NamedTuple):
    """One combination of the grid's values.

    Attributes:
      position: place along each axis of the grid.
      labels: the grid's names → coordinates in the dataset.
      static: names → values that are closed over: the experiment is traced once per combination.
      floats: names → values that are handed over as traced numbers.
    """

    position: tuple[int, ...]
    labels: dict[str, Label]
    static: dict[str, Any]
    floats: dict[str, float]

    @property
    def static_position(self) -> tuple[tuple[str, int], ...]:
        """Which combination of static values this is."""
        named = zip(self.labels, self.position, strict=True)
        return tuple((name, i) for name, i in named if name in self.static)

    @property
    def text(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.labels.items())


def seed_list(seeds: Any) -> list[int]:
    """`seeds` as a list of distinct ints ≥ 0; a number n stands for 0..n-1."""
    if not isinstance(seeds, Sequence | np.ndarray) or np.ndim(seeds) == 0:
        return list(range(checks.positive_int("seeds", seeds)))
    listed = list(seeds)
    try:
        numbers = [operator.index(seed) for seed in listed]
    except TypeError:
        numbers = [-1]
    if not listed or any(isinstance(seed, bool) for seed in listed) or min(numbers) < 0:
        raise ValueError(
            f"seeds is {seeds!r}; expected a number of seeds or a sequence of whole numbers ≥ 0."
        )
    _refuse_duplicates("seeds", numbers)
    return numbers


def grid_axes(grid: Mapping[str, Any] | None) -> dict[str, list[Any]]:
    """Names → values along that axis, numpy's scalars turned into Python's."""
    axes = {}
    for name, values in ({} if grid is None else grid).items():
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise ValueError(
                f"grid[{name!r}] is {values!r}; expected a sequence of values. For one value "
                f"write grid={{{name!r}: [{values!r}]}}."
            )
        axis = [value.item() if _is_scalar_array(value) else value for value in values]
        if not axis:
            raise ValueError(f"grid[{name!r}] is empty; expected at least one value.")
        if any(np.ndim(value) > 0 and hasattr(value, "dtype") for value in axis):
            raise ValueError(f"grid[{name!r}] holds arrays; what is an array belongs into args.")
        if any(isinstance(value, float) for value in axis) and all(map(_is_number, axis)):
            axis = [float(value) for value in axis]
            if any(map(math.isnan, axis)):
                raise ValueError(f"grid[{name!r}] holds NaN; expected numbers.")
        _refuse_duplicates(f"grid[{name!r}]", axis_labels(axis))
        axes[name] = axis
    return axes


def axis_labels(axis: list[Any]) -> list[Label]:
    """Coordinates of an axis: its values if all are of one simple type, else their names."""
    for simple in (bool, int, float, str):
        if all(type(value) is simple for value in axis):
            return axis
    return [getattr(value, "__name__", None) or str(value) for value in axis]


def settings(axes: dict[str, list[Any]]) -> list[Setting]:
    """Every combination of the axes' values; the last axis varies fastest."""
    labels = {name: axis_labels(axis) for name, axis in axes.items()}
    combinations = []
    for position in itertools.product(*(range(len(axis)) for axis in axes.values())):
        chosen = dict(zip(axes, position, strict=True))
        values = {name: axes[name][i] for name, i in chosen.items()}
        combinations.append(
            Setting(
                position,
                {name: labels[name][i] for name, i in chosen.items()},
                {name: v for name, v in values.items() if not isinstance(v, float)},
                {name: v for name, v in values.items() if isinstance(v, float)},
            )
        )
    return combinations


def check_call(experiment: Callable[..., Any], args: tuple[Any, ...], names: Iterable[str]) -> None:
    """Refuse an experiment that cannot be called as `experiment(key, *args, **setting)`."""
    if not callable(experiment):
        raise ValueError(
            f"experiment is of type {type(experiment).__name__}; expected a function "
            "experiment(key, *args, **setting)."
        )
    for path, leaf in jax.tree_util.tree_flatten_with_path(args)[0]:
        if not hasattr(leaf, "dtype") and not _is_number(leaf) and not isinstance(leaf, complex):
            raise ValueError(
                f"args{jax.tree_util.keystr(path)} is of type {type(leaf).__name__}; expected "
                "arrays. What is not an array is closed over, or a value of the grid."
            )
    checks.finite("args", args)
    try:
        signature = inspect.signature(experiment)
    except (TypeError, ValueError):  # some builtins have none: the call itself will tell
        return
    parameters = signature.parameters.values()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = [name for name in names if name not in known and not takes_any]
    if unknown:
        raise ValueError(
            f"grid names {unknown}, which the experiment does not take; its arguments are {known}."
        )
    try:
        signature.bind(None, *args, **dict.fromkeys(names))
    except TypeError as error:
        raise ValueError(
            f"The experiment's arguments {known} are not filled by a key, {len(args)} args and "
            f"the grid's {list(names)}: {error}."
        ) from error


def _is_scalar_array(value):
    return hasattr(value, "dtype") and hasattr(value, "item") and np.ndim(value) == 0


def _is_number(value):
    return isinstance(value, int | float | bool)


def _refuse_duplicates(name, values):
    repeated = [value for value, count in collections.Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(f"{name} holds {repeated} more than once; expected distinct values.")
