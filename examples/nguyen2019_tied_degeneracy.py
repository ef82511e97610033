"""Tied autoencoders are near the identity before any training: Nguyen, Wong and Hegde (2019), §6.

u = (1/m) W φ(Wᵀx) with W ~ N(0, σ²). Lemma 6.1 (6.4): E ‖x − u‖² = (σ²/2 − 1)² + (2d + 3) σ⁴/4m for
a unit input. The paper claims that (a) at σ² = 2 the error is (2d + 3)/m, at most ε from m = 3d/ε
on, without any training and for any unit input, and that (b) training such a network may therefore
be degenerate. It has no experiment.

(a) is held against one W per seed, and one input. For (b), n unit inputs are trained on, by
gradient descent of ½ Σ_i ‖x_i − u_i‖² with steps of η = c m/n: the kernel is O(1/m). The error on
them is compared with that on other unit inputs, which falls, too, where n is well above d (try
--train-dimensions 5).
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

# One JAX device per CPU core; read when JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 16)))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import rich.console
import rich.table
import xarray

from ntkflow import data, descend, squared_loss, studies
from ntkflow.systems import tied_autoencoder as system

SCALES = {
    "small": {
        "dimensions": [5, 10, 50],
        "widths": [50, 200, 800, 3200],
        "seeds": 200,
        "train_dimensions": [10, 50],
        "train_widths": [200, 2000],
        "train_seeds": 4,
    },
    "paper": {
        "dimensions": [3, 10, 50, 100],
        "widths": [50, 200, 800, 3200, 12_800],
        "seeds": 1000,
        "train_dimensions": [10, 50],
        "train_widths": [200, 2000, 20_000],
        "train_seeds": 10,
    },
}
HELD_OUT, RECORDS = 100, 25
STANDARD_ERRORS = 4  # some sixty comparisons: one in a hundred runs has one beyond


def initial_experiment(key, d, width, variance):
    """‖x − u‖² of one draw of W, for a fixed unit input: by rotation any is as good."""
    x = jnp.full((1, d), d**-0.5)
    module = system.TiedAutoencoder(width, variance)
    return {"initial_error": system.reconstruction_error(module.init(key, x), x)}


def build_training(samples, steps, learning_rate):
    def experiment(key, train_d, train_width):
        train_key, held_out_key, points_key, key = jax.random.split(key, 4)
        x = data.sphere(train_key, samples, train_d)
        module = system.TiedAutoencoder(train_width)
        observers = system.observables() | {
            "held_out_error": system.held_out_error(data.sphere(held_out_key, HELD_OUT, train_d)),
            "identity_distance": system.identity_distance(points_key),
        }
        run = descend(
            squared_loss(module.apply),
            optax.sgd(learning_rate * train_width / samples),
            steps,
            observe=observers,
            every=max(steps // RECORDS, 1),
        )
        return run(module.init(key, x), (x, x))

    return experiment


def with_theory(study):
    """The measured means and what (6.4) and the exact variance over draws of W say of them."""
    seeds = study.sizes["seed"]

    def exact(bound):
        setting = study["d"], study["width"], study["variance"]
        return xarray.apply_ufunc(lambda *values: bound(*values).value, *setting)

    expected, spread = exact(system.expected_error), exact(system.error_variance) ** 0.5
    mean = study["initial_error"].mean("seed")
    return study.assign(
        expected_error=expected,
        mean_error=mean,
        standard_deviation=study["initial_error"].std("seed", ddof=1),
        deviation=(mean - expected) / (spread / seeds**0.5),  # in exact standard errors
    )


def claims(study, training):
    """What the paper says, what was measured, and whether it holds."""
    largest = abs(study["deviation"]).max().item()
    rows = [
        (
            "(6.4) is E ‖x − u‖² exactly",
            f"off by {largest:.1f} standard errors at most, in {study['deviation'].size} settings",
            largest < STANDARD_ERRORS,
        )
    ]
    widest = study.isel(width=-1)
    if 2.0 in study.variance and study.sizes["variance"] > 1:
        best = widest.variance[widest["mean_error"].argmin("variance")]
        rows.append(
            (
                "σ² = 2 has the least error, for large m",
                f"least at m = {widest.width.item()} of the σ² tried: "
                + ", ".join(
                    f"{b:g} (d = {d})" for b, d in zip(best.values, best.d.values, strict=True)
                ),
                bool((best == 2.0).all()),
            )
        )
    if 2.0 in study.variance:
        share = (study["mean_error"] * study.width / (3 * study.d)).sel(variance=2.0).max("width")
        error = (study["standard_deviation"] * study.width / (3 * study.d)).sel(variance=2.0)
        error = STANDARD_ERRORS * error.max("width") / study.sizes["seed"] ** 0.5
        rows.append(
            (
                "Remark 6.1: the error is at most 3d/m at σ² = 2",
                "it is at most "
                + ", ".join(f"{s:.2f}" for s in share.values)
                + f" of that at d = {', '.join(map(str, share.d.values))}",
                bool((share <= 1 + error).all()),
            )
        )
    start, end = training.isel(step=0), training.isel(step=-1)
    far = start["identity_distance"].max("train_seed")
    shape = {"train_d": far.train_d, "train_width": far.train_width}
    root = (2 * shape["train_d"] + 3) ** 0.5 / shape["train_width"] ** 0.5
    rows.append(
        (
            "untrained, u ≈ x for any unit x",
            f"largest of 256 ‖x − u‖ at m = {far.train_width.values[-1]}: "
            + ", ".join(
                f"{f:.2f} (d = {d})"
                for f, d in zip(far.values[:, -1], far.train_d.values, strict=True)
            )
            + f", {(far / root).max().item():.1f} √((2d + 3)/m) at most",
            bool((far < 3 * root).all()),
        )
    )
    gain, held_out_gain = (
        (start[name] / end[name]).median("train_seed") for name in ("train_error", "held_out_error")
    )
    for i, d in enumerate(training.train_d.values):
        train, held_out = gain.values[i, -1], held_out_gain.values[i, -1]
        moved = end["relative_movement"].values[:, i, -1].max()
        rows.append(
            (
                f"training may be degenerate, d = {d}, m = {training.train_width.values[-1]}",
                f"training error ÷ {train:.0f}, held-out error ÷ {held_out:.1f}, W moves by "
                f"{moved:.1%}",
                bool(held_out < 0.1 * train),
            )
        )
    return rows


def show(study, training, rows, console):
    title = "‖x − u‖² at initialization: mean ± standard error over seeds, and (6.4) in brackets"
    table = rich.table.Table(title=title)
    for column in ("d", "m", *(f"σ² = {variance:g}" for variance in study.variance.values)):
        table.add_column(column, justify="right")
    error = study["standard_deviation"] / study.sizes["seed"] ** 0.5
    for d in study.d.values:
        for width in study.width.values:
            cells = (
                [part.sel(d=d, width=width, variance=variance).item() for part in parts]
                for parts in [(study["mean_error"], error, study["expected_error"])]
                for variance in study.variance.values
            )
            cells = (f"{mean:.4f} ±{e:.4f} ({exact:.4f})" for mean, e, exact in cells)
            table.add_row(str(d), str(width), *cells)
        table.add_section()
    console.print(table)

    samples, steps = json.loads(study.attrs["settings"])["samples"], training.step.values[-1]
    title = f"Before and after {steps} steps on {samples} inputs, σ² = 2: medians over seeds"
    table = rich.table.Table(title=title)
    for column in ("d", "m", "(6.4)", "training error", "held-out error"):
        table.add_column(column, justify="right")
    for column in ("largest ‖x − u‖ of 256", "‖W − W(0)‖/‖W(0)‖"):
        table.add_column(column, justify="right")
    middle = training.median("train_seed")
    for d in training.train_d.values:
        for width in training.train_width.values:
            part = middle.sel(train_d=d, train_width=width)
            pairs = (part[name].values[[0, -1]] for name in ("train_error", "held_out_error"))
            far = part["identity_distance"].values
            table.add_row(
                str(d),
                str(width),
                f"{system.expected_error(d, width).value:.2e}",
                *(f"{before:.2e} → {after:.2e}" for before, after in pairs),
                f"{far[0]:.3f} → {far[-1]:.3f}",
                f"{part['relative_movement'].values[-1]:.1%}",
            )
    console.print(table)
    for claim, measured, holds in rows:
        console.print(f"{'holds' if holds else 'FAILS'}: {claim}: {measured}")


def tenths(part):
    """How far the 10 % and 90 % quantiles over seeds lie from the mean, as error bars."""
    low, high = part["initial_error"].quantile([0.1, 0.9], "seed")
    distances = part["mean_error"] - low, high - part["mean_error"]
    return np.maximum([distance.values for distance in distances], 0)


def draw(study, training, path):
    figure = matplotlib.figure.Figure(figsize=(14.5, 4.8), layout="constrained")
    by_width, by_variance, along = figure.subplots(1, 3)

    nearest = study.sel(variance=2.0, method="nearest")
    widths = np.geomspace(study.width.values[0], study.width.values[-1], 100).round()
    colors = matplotlib.colormaps["viridis"](np.linspace(0.85, 0.1, study.sizes["d"]))
    for d, color in zip(study.d.values, colors, strict=True):
        part = nearest.sel(d=d)
        by_width.errorbar(
            part.width,
            part["mean_error"],
            tenths(part),
            fmt="o",
            capsize=2,
            color=color,
            label=f"d = {d}",
        )
        exact = system.expected_error(d, widths, nearest.variance.item()).value
        by_width.plot(widths, exact, color=color)
    by_width.set(xscale="log", yscale="log", xlabel="width m", ylabel="‖x − u‖²")
    by_width.set_title(
        f"(a) untrained, σ² = {nearest.variance.item():g}: mean, 10–90 % of seeds, (6.4)"
    )

    d = study.d.values[study.sizes["d"] // 2]
    low, high = study.variance.values[[0, -1]]
    variances = np.linspace(low / 2, high * 1.1, 200)
    colors = matplotlib.colormaps["viridis"](np.linspace(0.85, 0.1, study.sizes["width"]))
    for width, color in zip(study.width.values, colors, strict=True):
        part = study.sel(d=d, width=width)
        by_variance.errorbar(
            part.variance,
            part["mean_error"],
            tenths(part),
            fmt="o",
            capsize=2,
            color=color,
            label=f"m = {width}",
        )
        exact = system.expected_error(d, width, variances).value
        by_variance.plot(variances, exact, color=color)
        best = system.best_variance(d, width).value
        least = system.expected_error(d, width, best).value
        by_variance.plot(best, least, marker="v", color="black", markersize=5, zorder=3)
    by_variance.plot([], [], "kv", markersize=5, label="least of (6.4)")
    by_variance.set(yscale="log", xlabel="σ²", ylabel="‖x − u‖²")
    by_variance.set_title(f"(b) untrained, d = {d}: mean, 10–90 % of seeds, (6.4)")

    d = training.train_d.values[0]
    curves = {
        f"{label}, m = {width}": training[name].sel(train_d=d, train_width=width, drop=True)
        for width in training.train_width.values
        for name, label in (("held_out_error", "held out"), ("train_error", "trained"))
    }
    joined = xarray.concat(list(curves.values()), xarray.Variable("inputs", list(curves)))
    joined = joined.rename(train_seed="seed").to_dataset(name="squared_error")
    studies.learning_curve(joined, "squared_error", hue="inputs", ax=along)
    along.set(ylabel="mean of ‖x − u‖²")
    along.legend(frameon=False, ncols=2, loc="upper center", fontsize="small", columnspacing=1.0)
    if not training["diverged"].all():  # room for the legend
        along.margins(y=0.35)
    along.set_title(f"(c) along training, d = {d}, σ² = 2")
    by_width.legend(frameon=False)
    by_variance.set_ylim(top=by_variance.get_ylim()[1] * 30)  # room for the legend
    by_variance.legend(frameon=False, ncols=2, loc="upper center")
    figure.savefig(path, dpi=150)


def merge(study, training):
    """One dataset of both studies; those of the training have names of their own."""
    kept = ["loss", "train_error", "held_out_error", "identity_distance", "relative_movement"]
    diverged = bool(training["diverged"].any())
    merged = xarray.merge([study, training[kept]], combine_attrs="override")
    merged["diverged"] |= diverged
    return merged


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    whole = {"type": int, "nargs": "+", "help": "in place of the scale's"}
    parser.add_argument("--dimensions", **whole)
    parser.add_argument("--widths", **whole)
    parser.add_argument("--seeds", type=int, help="in place of the scale's")
    parser.add_argument("--train-dimensions", **whole)
    parser.add_argument("--train-widths", **whole)
    parser.add_argument("--train-seeds", type=int, help="in place of the scale's")
    parser.add_argument(
        "--variances",
        type=float,
        nargs="+",
        default=[1.0, 1.5, 2.0, 2.5, 3.0],
        help="σ² at initialization: %(default)s",
    )
    parser.add_argument("--samples", type=int, default=20, help="n, trained on: %(default)s")
    parser.add_argument("--steps", type=int, default=500, help="of training: %(default)s")
    parser.add_argument(
        "--learning-rate", type=float, default=0.1, help="c in η = c m/n: %(default)s"
    )
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the files")
    parser.add_argument(
        "--resume", action="store_true", help="keep what is finished, and go on from there"
    )
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    scale = {name: given.get(name, value) for name, value in SCALES[options.scale].items()}
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 150, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"nguyen2019_tied_degeneracy_{options.scale}"
    folders = [options.output / f"{name}_{part}" if options.resume else None for part in (1, 2)]

    study = studies.run(
        initial_experiment,
        seeds=scale["seeds"],
        grid={
            "d": scale["dimensions"],
            "width": scale["widths"],
            "variance": options.variances,
        },
        folder=folders[0],
    )
    study = with_theory(study)
    training = studies.run(
        build_training(options.samples, options.steps, options.learning_rate),
        seeds=scale["train_seeds"],
        grid={"train_d": scale["train_dimensions"], "train_width": scale["train_widths"]},
        folder=folders[1],
    ).rename(seed="train_seed")
    settings = vars(options) | scale
    del settings["output"], settings["resume"]
    study.attrs["settings"] = json.dumps(settings, sort_keys=True)
    console.print(
        f"{scale['seeds']} seeds untrained; {scale['train_seeds']} trained on n = "
        f"{options.samples} inputs with η = {options.learning_rate} m/n; on "
        f"{jax.local_device_count()} {jax.default_backend()} devices."
    )
    show(study, training, claims(study, training), console)
    draw(study, training, options.output / f"{name}.png")
    study = merge(study, training)
    studies.save(study, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - begin:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
