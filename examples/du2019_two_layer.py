"""Figure 2.1 of Du (2019): gradient descent of two-layer ReLU networks on synthetic data.

n points uniform on the unit sphere of R^d, labels N(0, 1), 100 steps of gradient descent of fixed
size on ½ Σ (f − y)², first layer trained. The thesis claims that wider networks (a) converge
faster, (b) change fewer activation patterns, (c) move their weights less. It gives neither step
size nor widths nor seeds: they are arguments here, η = 0.1 by default, and every seed draws data
and weights anew.

The loss after 100 steps itself is not monotone in the width seed by seed, because the loss at
step 0 varies: claim (a) is held against the rate of the second half, ln(L(50)/L(100))/50.
"""

import argparse
import os
import sys
import time
from pathlib import Path

# One JAX device per CPU core, and one thread of LAPACK on each: devices that decompose matrices
# at once with threads for all cores wait for one another. Both are read when JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 16)))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import matplotlib.figure
import numpy as np
import optax
import rich.console
import rich.table

from ntkflow import data, descend, squared_loss, studies
from ntkflow.systems import two_layer_relu as system

# λ_min needs float64; networks and data stay float32.
jax.config.update("jax_enable_x64", True)

SCALES = {
    "small": {"n": 200, "d": 200, "widths": [100, 200, 400, 800], "seeds": 8},
    "paper": {"n": 1000, "d": 1000, "widths": [250, 500, 1000, 2000, 4000], "seeds": 10},
}
STEPS, EVERY = 100, 10


def build_experiment(n, d, learning_rate):
    def experiment(key, width):
        data_key, key = jax.random.split(key)
        x, y = data.sphere_gaussian_labels(data_key, n, d, dtype="float32")
        module = system.TwoLayerReLU(width, param_dtype="float32")
        run = descend(
            squared_loss(module.apply),
            optax.sgd(learning_rate),
            STEPS,
            every=EVERY,
            observe={
                "pattern_changes": system.pattern_changes,
                "largest_weight_distance": system.largest_weight_distance,
                "gram_smallest_eigenvalue": system.gram_smallest_eigenvalue,
            },
        )
        limit = system.limit_smallest_eigenvalue(x.astype(float))
        return run(module.init(key, x), (x, y)), {"lambda_0": limit}

    return experiment


def late_rate(study):
    """ln(L(50)/L(100))/50, of each seed and width."""
    return np.log(study["loss"].sel(step=STEPS // 2) / study["loss"].sel(step=STEPS)) / 50


def claims(study):
    """The three claims of Figure 2.1, and whether they hold."""
    last = study.isel(step=-1)
    rate = late_rate(study).mean("seed")

    def falls(name):
        return bool((last[name].diff("width") < 0).all())

    return {
        "(a) faster convergence as m grows: mean rate of the second half": bool(
            (rate.diff("width") > 0).all()
        ),
        "(b) fewer pattern changes as m grows, for every seed": falls("pattern_changes"),
        "(c) smaller largest distance as m grows, for every seed": falls("largest_weight_distance"),
        "the reason given: larger λ_min(H(k)), mean over the run and seeds": bool(
            (study["gram_smallest_eigenvalue"].mean(["seed", "step"]).diff("width") > 0).all()
        ),
    }


def show(study, console):
    table = rich.table.Table(title="Figure 2.1 after 100 steps: mean ± standard deviation")
    for column in ("width", "L(100)/L(0)", "rate of steps 50–100", "patterns changed, %"):
        table.add_column(column, justify="right")
    for column in ("max ‖w_r − w_r(0)‖", "λ_min(H(100))", "λ_0"):
        table.add_column(column, justify="right")

    last = study.isel(step=-1)
    quantities = (
        (last["loss"] / study["loss"].isel(step=0), "{:.2e}"),
        (late_rate(study), "{:.4f}"),
        (100 * last["pattern_changes"], "{:.2f}"),
        (last["largest_weight_distance"], "{:.3f}"),
        (last["gram_smallest_eigenvalue"], "{:.4f}"),
        (last["lambda_0"], "{:.4f}"),
    )
    for width in study.width.values:
        cells = [quantity.sel(width=width) for quantity, _ in quantities]
        table.add_row(
            str(width),
            *(
                f"{form.format(cell.mean().item())} ±{form.format(cell.std().item())}"
                for cell, (_, form) in zip(cells, quantities, strict=True)
            ),
        )
    console.print(table)
    for claim, holds in claims(study).items():
        console.print(f"{'holds' if holds else 'FAILS'}: {claim}")


def draw(study, path):
    figure = matplotlib.figure.Figure(figsize=(13.5, 4.2), layout="constrained")
    panels = {
        "loss": "(a) training loss, ½ Σ (f − y)²",
        "pattern_changes": "(b) share of patterns changed",
        "largest_weight_distance": "(c) largest distance from the start",
    }
    for ax, (name, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        studies.learning_curve(study, name, hue="width", ax=ax)
        ax.set_title(title)
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    parser.add_argument("--widths", type=int, nargs="+", help="in place of the scale's")
    parser.add_argument("--seeds", type=int, help="in place of the scale's")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="η: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the files")
    parser.add_argument(
        "--resume", action="store_true", help="keep finished widths, and go on from there"
    )
    options = parser.parse_args(arguments)
    scale = SCALES[options.scale]
    start = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 132, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    study = studies.run(
        build_experiment(scale["n"], scale["d"], options.learning_rate),
        seeds=options.seeds or scale["seeds"],
        grid={"width": options.widths or scale["widths"]},
        folder=options.output / f"du2019_two_layer_{options.scale}" if options.resume else None,
    )
    console.print(
        f"n = {scale['n']}, d = {scale['d']}, η = {options.learning_rate}, "
        f"{study.sizes['seed']} seeds, on {jax.local_device_count()} {jax.default_backend()} "
        "devices."
    )
    show(study, console)
    name = f"du2019_two_layer_{options.scale}"
    draw(study, options.output / f"{name}.png")
    studies.save(study, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - start:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
