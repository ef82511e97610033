"""Figures of a study, drawn on matplotlib axes without any display."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ntkflow.studies.files import require

if TYPE_CHECKING:
    import matplotlib.axes
    import xarray

# Okabe and Ito (2008): told apart with any colour vision; for hues without an order.
_DISTINCT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def learning_curve(
    dataset: "xarray.Dataset",
    variable: str = "loss",
    *,
    along: str = "step",
    hue: str | None = None,
    reference: Mapping[str, Any] | None = None,
    spread: tuple[float, float] = (0.1, 0.9),
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """Draw a result along the run: the median over seeds, and a band between two quantiles.

    Runs with NaN or infinity in this variable are left out, and counted in the legend. The
    vertical axis is logarithmic where everything drawn is positive.

    Args:
      dataset: a study. Axes of the grid other than `hue` must be chosen first, by
        `dataset.sel(learning_rate=0.1)`.
      variable: the result to draw, with dimensions seed and `along`.
      along: the horizontal axis.
      hue: the axis that gives one curve per value; None takes the only one left, if any.
      reference: labels → predictions along the same axis: a DataArray with the dimension `along`,
        or an array as long as it. Drawn dashed.
      spread: the band's two quantiles.
      ax: where to draw; None makes a new figure.

    Returns:
      The axes; `axes.figure.savefig("figure.pdf")` writes the figure.

    Raises:
      ValueError: an unknown variable, a dimension missing or left over, a reference of another
        shape.
      ImportError: the extra `study` is not installed.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ntkflow.studies import run
      >>> from ntkflow.training.descent import Trajectory
      >>> def experiment(key, rate):
      ...     steps = jnp.arange(0, 50, 10)
      ...     loss = (1 - rate) ** steps * (1 + jax.random.uniform(key))
      ...     return Trajectory(None, None, steps, {"loss": loss})
      >>> study = run(experiment, seeds=8, grid={"rate": [0.02, 0.05]}, progress=False)
      >>> axes = learning_curve(study, reference={"limit": 1.5 * 0.95 ** study.step})
      >>> [text.get_text() for text in axes.get_legend().get_texts()]
      ['0.02', '0.05', 'limit']
    """
    array, hue = _choose(dataset, variable, along, hue)
    ax = _axes(ax)
    drawn = []
    for curve in _curves(array, along, hue):
        low, middle, high = np.quantile(curve.values, [spread[0], 0.5, spread[1]], axis=0)
        ax.fill_between(curve.x, low, high, color=curve.color, alpha=0.2, linewidth=0)
        ax.plot(curve.x, middle, color=curve.color, label=curve.label)
        drawn += [low, middle]
    _finish(ax, dataset, variable, along, hue, reference, drawn)
    return ax


def against(
    dataset: "xarray.Dataset",
    x: str,
    y: str,
    *,
    hue: str | None = None,
    reference: Mapping[str, Any] | None = None,
    spread: tuple[float, float] = (0.1, 0.9),
    ax: "matplotlib.axes.Axes | None" = None,
) -> "matplotlib.axes.Axes":
    """Draw a result against an axis of the grid: medians over seeds, bars between two quantiles.

    Both axes are logarithmic where everything drawn is positive. Arguments, results and errors
    are those of `learning_curve`, with `x` for `along` and `y` for `variable`. A result with an
    axis of records needs one of them: `dataset.isel(step=-1)`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from ntkflow.studies import run
      >>> def experiment(key, width):
      ...     return {"distance": (1 + jax.random.uniform(key)) / jnp.sqrt(width)}
      >>> study = run(experiment, seeds=8, grid={"width": [64, 256, 1024]}, progress=False)
      >>> axes = against(study, x="width", y="distance", reference={"1/√m": study.width**-0.5})
      >>> axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()
      ('log', 'width', 'distance')
    """
    array, hue = _choose(dataset, y, x, hue)
    ax = _axes(ax)
    drawn = []
    for curve in _curves(array, x, hue):
        low, middle, high = np.quantile(curve.values, [spread[0], 0.5, spread[1]], axis=0)
        bars = [middle - low, high - middle]
        ax.errorbar(
            curve.x, middle, bars, color=curve.color, label=curve.label, marker="o", capsize=2
        )
        drawn += [low, middle]
    _finish(ax, dataset, y, x, hue, reference, drawn)
    positions = dataset[x].values
    if positions.dtype.kind in "iuf" and (positions > 0).all():
        ax.set_xscale("log")
        if len(positions) <= 8:
            ax.set_xticks(positions, [str(value) for value in positions.tolist()])
            ax.set_xticks([], minor=True)
    return ax


class _Curve(NamedTuple):
    x: np.ndarray
    values: np.ndarray  # (seeds that did not diverge, x)
    label: str | None
    color: Any


def _choose(dataset, variable, along, hue):
    """The variable with the dimensions (seed, along) and perhaps a hue, and the hue's name."""
    if variable not in dataset.data_vars:
        known = [name for name in dataset.data_vars if name not in ("error", "diverged")]
        raise ValueError(f"The study has no result {variable!r}; it has {known}.")
    array = dataset[variable]
    named = ("seed", along, hue)
    array = array.squeeze([d for d, n in array.sizes.items() if n == 1 and d not in named])
    missing = [dim for dim in named if dim is not None and dim not in array.dims]
    if missing:
        raise ValueError(f"{variable} has no dimension {missing}; it has {list(array.dims)}.")
    others = [str(dim) for dim in array.dims if dim not in named]
    if hue is None and len(others) == 1:
        hue = others.pop()
    if others:
        raise ValueError(
            f"{variable} has the dimensions {others} beside seed and {along!r}: choose one of them "
            f"as hue, and a value of the rest, e.g. by dataset.isel({others[-1]}=0)."
        )
    return array.transpose("seed", along, *([] if hue is None else [hue])), hue


def _curves(array, along, hue):
    """One curve per value of the hue."""
    parts = [array] if hue is None else [array.isel({hue: i}) for i in range(array.sizes[hue])]
    colors = _colors(len(parts), hue is not None and array[hue].dtype.kind in "iuf")
    for part, color in zip(parts, colors, strict=True):
        recorded = part.dropna(along, how="all")  # other settings may have records elsewhere
        fine = np.isfinite(recorded.values).all(axis=1)
        label = [] if hue is None else [str(part[hue].item())]
        if recorded.size == 0:
            label.append("(failed)")
        elif not fine.all():
            label.append(f"({(~fine).sum()} of {len(fine)} diverged)")
        if recorded.size == 0 or not fine.any():  # no line, but an entry in the legend
            yield _Curve(np.empty(0), np.empty((1, 0)), " ".join(label), color)
        else:
            x = recorded[along].values
            yield _Curve(x, recorded.values[fine], " ".join(label) or None, color)


def _colors(count, ordered):
    if count == 1:
        return _DISTINCT[:1]
    if not ordered:
        return [_DISTINCT[i % len(_DISTINCT)] for i in range(count)]
    colormap = require("matplotlib").colormaps["viridis"]
    return [
        colormap(level) for level in np.linspace(0.85, 0.1, count)
    ]  # its ends are too pale, too black


def _axes(ax):
    if ax is not None:
        return ax
    figure = require("matplotlib.figure").Figure(figsize=(4.8, 3.4), layout="constrained", dpi=200)
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _finish(ax, dataset, variable, along, hue, reference, drawn):
    """References, scales, names with units, and a legend if there is anything to tell."""
    for (label, values), style in zip((reference or {}).items(), _styles(), strict=False):
        x = values[along].values if hasattr(values, "dims") else dataset[along].values
        y = np.atleast_1d(np.squeeze(np.asarray(values)))  # of an axis of one value, too
        if y.shape != x.shape:
            raise ValueError(
                f"reference[{label!r}] has shape {y.shape}; expected {x.shape}, a value at each "
                f"{along}."
            )
        ax.plot(x, y, color="black", linewidth=1.2, linestyle=style, label=label)
        drawn.append(y)
    if all((values > 0).all() for values in drawn):
        ax.set_yscale("log")
    ax.set_xlabel(_title(dataset, along))
    ax.set_ylabel(_title(dataset, variable))
    handles, names = ax.get_legend_handles_labels()
    if names:
        last = [name in (reference or {}) for name in names]  # matplotlib puts plain lines first
        order = np.argsort(last, kind="stable")
        title = None if hue is None else _title(dataset, hue)
        entries = [handles[i] for i in order], [names[i] for i in order]
        ax.legend(*entries, title=title, frameon=False, alignment="left")


def _styles():
    while True:
        yield from ("--", ":", "-.")


def _title(dataset, name):
    attrs = dataset[name].attrs
    title = attrs.get("long_name", name).replace("_", " ")
    unit = attrs.get("units", "1")
    return title if unit == "1" else f"{title} ({unit})"
