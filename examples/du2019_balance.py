"""Figure 4.2 of Du (2019): gradient descent keeps the layers of a ReLU network balanced.

A network W_3 φ(W_2 φ(W_1 x)) of 1000-100-100-10 neurons, 1000 points, 10 000 steps of gradient
descent on the quadratic loss, from two initializations: all ‖W_h‖_F² ≈ 0.1, and 10, 1, 0.1. The
thesis claims that the differences D_h = ‖W_h‖_F² − ‖W_{h+1}‖_F² hardly change, so that the ratios
come close to 1 while the norms grow. Under gradient flow the differences do not change at all;
descent drifts by D_h(T) − D_h(0) = η² Σ_t (‖∇_h L‖² − ‖∇_{h+1} L‖²), exactly.

The thesis gives neither data nor step size nor the factor of the loss. Here inputs and labels are
N(0, 1), the loss is (1/2n) Σ ‖f − y‖² and η = 0.02; every seed draws data and weights anew. Final
norms depend on all of that, and cannot be compared; differences and ratios can. Beside each run
stand, for the first part of it, where the norms grow, descent with η/4 at equal times ηt, whose
drift should be a quarter, and the flow itself, by an adaptive solver. Its error shows as a drift,
too: at each kink of ReLU on its way it is of first order, and steps grow like 1/tolerance.
"""

import argparse
import os
import sys
import time
from pathlib import Path

# One JAX device per CPU core; read when JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 16)))

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.lines
import numpy as np
import optax
import rich.console
import rich.table

from ntkflow import descend, gradient_flow, studies
from ntkflow.systems import homogeneous as system

SCALES = {
    "small": {"samples": 100, "width": 30, "steps": 6000, "seeds": 4, "rtol": 1e-4},
    "paper": {"samples": 1000, "width": 100, "steps": 10_000, "seeds": 2, "rtol": 1e-5},
}
OUTPUTS = 10
SMALLEST = 0.1  # ‖W_3‖_F² at the start; the others are it times a power of the initial ratio
RATIOS = [1.0, 10.0]
REFINEMENT = 4
SHARE = 0.4  # of the run, that finer steps and the flow follow
RECORDS = 100
NAMES = {1.0: "balanced", 10.0: "unbalanced"}
METHODS = {"": "descent, η", "finer_": f"descent, η/{REFINEMENT}", "flow_": "gradient flow"}
STYLES = {"": "-", "finer_": "--", "flow_": ":"}
COLORS = {1: "#0072B2", 2: "#D55E00"}
# What the thesis prints, by initial ratio: final ‖W_h‖_F², bounds on the differences, and the
# ratios of those norms. 42.90 is probably 43.90, whose difference from 43.76 is the 0.14 of the
# text.
PRINTED = {
    1.0: {
        "norms": "42.90, 43.76, 43.68",
        "bound": "≤ 0.14",
        "change": "",
        "early": "",
        "late": "→ 1 (.980, 1.002)",
    },
    10.0: {
        "norms": "55.50, 45.65, 45.46",
        "bound": "≤ 9",
        "change": "very little",
        "early": "close to 1",
        "late": "1.216, 1.004",
    },
}


def build_experiment(samples, width, steps, rtol, step_size):
    every = max(steps // RECORDS, 1)
    followed = int(SHARE * steps) // every * every
    shapes = [(samples, width), (width, width), (width, OUTPUTS)]
    observe = {"squared_norms": lambda snapshot: system.squared_norms(snapshot.params)}

    def experiment(key, initial_ratio):
        inputs_key, labels_key, key = jax.random.split(key, 3)
        x = jax.random.normal(inputs_key, (samples, samples), jnp.float32)
        y = jax.random.normal(labels_key, (samples, OUTPUTS), jnp.float32)
        squares = SMALLEST * initial_ratio ** jnp.array([2.0, 1.0, 0.0])
        deviations = [jnp.sqrt(s / (a * b)) for s, (a, b) in zip(squares, shapes, strict=True)]
        network = system.HomogeneousNetwork(
            (width, width, OUTPUTS),
            kernel_init=[nn.initializers.normal(deviation) for deviation in deviations],
            param_dtype=jnp.float32,
        )
        params, loss = network.init(key, x), system.average_loss(network.apply)
        optimizer = optax.chain(optax.sgd(step_size), system.accumulate_drift())
        run = descend(loss, optimizer, steps, every=every, observe=observe)
        finer = descend(
            loss,
            optax.sgd(step_size / REFINEMENT),
            followed * REFINEMENT,
            every=every * REFINEMENT,
            observe=observe,
        )
        times = step_size * np.arange(0, followed + 1, every)
        flow = gradient_flow(loss, times, observe=observe, rtol=rtol, atol=rtol / 100)
        trajectory, flowed = run(params, (x, y)), flow(params, (x, y))
        return trajectory, {
            "predicted_drift": system.drift(trajectory.state).layer,
            "finer_squared_norms": finer(params, (x, y)).history["squared_norms"],
            "flow_squared_norms": flowed.history["squared_norms"],
            "solver_steps": flowed.state.solver_steps,
        }

    return experiment


def describe(study):
    """The study with the difference and the ratio of neighbouring layers, and names of axes."""
    early = study.step.values[: study.sizes["early_step"]]
    study = study.assign_coords(early_step=early, layer=[1, 2, 3], hidden=[1, 2])
    for method in METHODS:
        norms = study[f"{method}squared_norms"]
        first, second = (
            norms.sel(layer=layers).rename(layer="hidden").assign_coords(hidden=[1, 2])
            for layers in ([1, 2], [2, 3])
        )
        study[f"{method}difference"], study[f"{method}ratio"] = first - second, first / second
    return study


def drifts(study):
    """How far both differences together are from where they were, at the same time ηt, by method;
    and the error of the exact formula at the end of descent, relative to the largest norm."""
    end = study.early_step.values[-1]
    moved = {}
    for method in METHODS:
        difference = study[f"{method}difference"]
        axis = "early_step" if method else "step"
        moved[method] = np.hypot(
            *(
                difference.sel({axis: end, "hidden": h}) - difference.sel({axis: 0, "hidden": h})
                for h in (1, 2)
            )
        )
    total = study["difference"].isel(step=-1) - study["difference"].isel(step=0)
    error = np.abs(total - study["predicted_drift"]).max("hidden")
    return moved, error / study["squared_norms"].isel(step=-1).max("layer")


def claims(study):
    """The claims of section 4.4 and of the theory behind them, and whether they hold."""
    balanced, unbalanced = (study.sel(initial_ratio=ratio) for ratio in RATIOS)
    change = unbalanced["difference"] - unbalanced["difference"].isel(step=0)
    ratio = unbalanced["ratio"]
    moved, error = drifts(study)
    steps = int(study.step.values[-1])
    rounding = 4 * np.sqrt(steps) * np.finfo(np.float32).eps
    quotient = moved[""] / moved["finer_"]
    return {
        "balanced: differences at most 0.14 at all steps": np.abs(balanced["difference"]) <= 0.14,
        "balanced: ratios within 0.01 of 1 at the end": np.abs(balanced["ratio"].isel(step=-1) - 1)
        <= 0.01,
        "unbalanced: differences change by less than 0.1 from 9 and 0.9": np.abs(change) < 0.1,
        "unbalanced: ratios fall towards 1": (ratio.isel(step=-1) < ratio.isel(step=0) / 2)
        & (ratio.isel(step=-1) > 1),
        f"D_h(T) − D_h(0) = η² Σ_t (‖∇_h L‖² − ‖∇_{{h+1}} L‖²), to {rounding:.0e} ‖W‖², "
        "the rounding of float32": error <= rounding,
        f"a step of η/{REFINEMENT} drifts 1/{REFINEMENT} as far, within 25 %": np.abs(
            quotient / REFINEMENT - 1
        )
        < 0.25,
        "the flow, up to the error of its solver, drifts less than descent": moved["flow_"]
        < moved[""],
    }


def show(study, console):
    for ratio in RATIOS:
        run = study.sel(initial_ratio=ratio)
        table = rich.table.Table(title=f"Figure 4.2, {NAMES[ratio]} start: median over seeds")
        for column in ("quantity", "1", "2", "3", "Du (2019)"):
            table.add_column(column, justify="left" if column == "quantity" else "right")
        printed = PRINTED[ratio]
        last = int(study.step.values[-1])
        after = int(study.step.values[np.abs(study.step.values - 1000).argmin()])
        difference = run["difference"]
        change = difference - difference.isel(step=0)
        rows = (
            (
                f"‖W_h‖_F² after {last} steps",
                run["squared_norms"].sel(step=last),
                ".2f",
                printed["norms"],
            ),
            ("largest |D_h| of all steps", np.abs(difference).max("step"), ".4f", printed["bound"]),
            ("largest |D_h − D_h(0)|", np.abs(change).max("step"), ".5f", printed["change"]),
            ("D_h(T) − D_h(0), measured", change.sel(step=last), ".5f", ""),
            ("D_h(T) − D_h(0), the formula", run["predicted_drift"], ".5f", ""),
            ("ratio ‖W_h‖²/‖W_{h+1}‖² at the start", run["ratio"].sel(step=0), ".4f", ""),
            (f"ratio after {after} steps", run["ratio"].sel(step=after), ".4f", printed["early"]),
            (f"ratio after {last} steps", run["ratio"].sel(step=last), ".4f", printed["late"]),
        )
        for name, values, form, claimed in rows:
            cells = [format(value, form) for value in values.median("seed").values.tolist()]
            table.add_row(name, *cells, *[""] * (3 - len(cells)), claimed)
        moved, _ = drifts(run)
        end = int(study.early_step.values[-1])
        for method, name in METHODS.items():
            label = f"‖D − D(0)‖ at the time of step {end}, {name}"
            table.add_row(label, f"{moved[method].median().item():.5f}", "", "", "")
        console.print(table)
    for claim, holds in claims(study).items():
        console.print(f"{'holds' if bool(holds.all()) else 'FAILS'}: {claim}", markup=False)


def draw(study, path):
    figure = matplotlib.figure.Figure(figsize=(11, 7.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    norms = r"\|W_h\|_F^2", r"\|W_{h+1}\|_F^2"
    quantities = {
        "difference": f"${norms[0]} - {norms[1]}$",
        "ratio": f"${norms[0]}\\,/\\,{norms[1]}$",
    }
    panels = [(ratio, quantity) for ratio in RATIOS for quantity in quantities]
    for letter, ax, (ratio, quantity) in zip("abcd", axes.flat, panels, strict=True):
        for h, color in COLORS.items():
            for method, style in STYLES.items():
                curves = study[f"{method}{quantity}"].sel(initial_ratio=ratio, hidden=h)
                steps = curves["early_step" if method else "step"].values
                for values in curves.transpose("seed", ...).values:
                    ax.plot(steps, values, color=color, linestyle=style)
        ax.set_title(f"({letter}) {NAMES[ratio]}: {quantities[quantity]}")
        ax.spines[["top", "right"]].set_visible(False)
        if quantity == "ratio":
            ax.axhline(1, color="black", linewidth=0.6)
            if ratio > 1:
                ax.set_yscale("log")
                ticks = [1, 1.5, 2, 3, 5, 10]
                ax.set_yticks(ticks, [str(tick) for tick in ticks])
                ax.set_yticks([], minor=True)
        elif ratio > 1:
            ax.set_ylim(bottom=0)
    for ax in axes[1]:
        ax.set_xlabel("time, in steps of η")
    lines = matplotlib.lines.Line2D
    entries = [lines([], [], color=color, label=f"h = {h}") for h, color in COLORS.items()]
    entries += [
        lines([], [], color="black", linestyle=style, label=METHODS[method])
        for method, style in STYLES.items()
    ]
    axes[0, 1].legend(handles=entries, frameon=False)  # the panel with the most room
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    for name in ("samples", "width", "steps", "seeds"):
        parser.add_argument(f"--{name}", type=int, help="in place of the scale's")
    parser.add_argument("--rtol", type=float, help="of the solver, in place of the scale's")
    parser.add_argument("--learning-rate", type=float, default=0.02, help="η: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the files")
    parser.add_argument(
        "--resume", action="store_true", help="keep finished cells, and go on from there"
    )
    options = parser.parse_args(arguments)
    chosen = {k: getattr(options, k) or value for k, value in SCALES[options.scale].items()}
    seeds, step_size = chosen.pop("seeds"), options.learning_rate
    start = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 132, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"du2019_balance_{options.scale}"
    norms = ("early_step", "layer")
    study = studies.run(
        build_experiment(**chosen, step_size=step_size),
        seeds=seeds,
        grid={"initial_ratio": RATIOS},
        dims={
            "squared_norms": ("layer",),
            "predicted_drift": ("hidden",),
            **{f"{method}squared_norms": norms for method in METHODS if method},
        },
        folder=options.output / name if options.resume else None,
    )
    study = describe(study)
    console.print(
        f"{chosen['samples']} samples, layers {chosen['samples']}-{chosen['width']}-"
        f"{chosen['width']}-{OUTPUTS}, {chosen['steps']} steps, η = {step_size}, seeds: {seeds}, "
        f"on {jax.local_device_count()} {jax.default_backend()} devices."
    )
    show(study, console)
    draw(study, options.output / f"{name}.png")
    studies.save(study, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - start:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
