"""Chapter 3 of Du (2019): what depth does to the Gram matrix that sets the rate of a network.

H layers of softplus, all weights N(0, 1) and all trained by gradient descent on ½ Σ (f − y)²: fully
connected, residual, and convolutional residual networks on the same n points of the unit sphere
(cut into pixels for the last one), labels N(0, 1); each seed draws the weights. The chapter has no
experiment. Its theorems say
(a) the last layer's Gram matrix G^(H)(0) tends to a fixed K^(H) as the width m grows;
(b) λ_min(K^(H)) falls geometrically with H in a fully connected network, as H⁻² in a residual one;
(c) training moves weights by an amount that does not grow with m, where their norms do: the
    movement ‖W(k) − W(0)‖_F / √m falls like m^(−1/2);
(d) the loss stays below (1 − ηλ_0/2)ᵏ L(0) with λ_0 = λ_min(K^(H)).

The step sizes of Theorems 3.1 to 3.3, O(λ_0 / (n² 2^O(H))) and O(λ_0 H² / n²), leave nothing to see
in any number of steps. Here η = 1/λ_max(G(0)), half of the largest stable one, with the Gram matrix
G of all layers, and the claims are held against that η.
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
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
import rich.console
import rich.table

from ntkflow import data, descend, empirical_ntk, squared_loss, studies
from ntkflow.kernels.spectrum import extreme_eigenvalues
from ntkflow.systems import deep as system

# λ_min of a product of 16 layers is 1e-9 of λ_max: float64 throughout.
jax.config.update("jax_enable_x64", True)

SCALES = {
    "small": {"widths": [16, 32, 64, 128], "depths": [2, 4, 8], "seeds": 4, "steps": 400},
    "paper": {
        "widths": [16, 32, 64, 128, 256],
        "depths": [2, 3, 4, 6, 8, 12, 16],
        "seeds": 16,
        "steps": 1000,
    },
}
MODULES = {
    "fully-connected": system.FullyConnected,
    "residual": system.ResNet,
    "convolutional": system.ConvolutionalResNet,
}
N, D, PIXELS, DEPTH, RECORDS = 5, 32, 4, 3, 40
DRAWS = 8  # of the weights per seed, for the error of G^(H)(0), which varies more than the rest


def draw_data(architecture):
    """The same points for all seeds and networks; only their shape differs."""
    x, y = data.sphere_gaussian_labels(jax.random.key(2019), N, D)
    return (x.reshape(N, PIXELS, D // PIXELS) if architecture == "convolutional" else x), y


def build_training(steps, limits):
    """Experiment: draw the weights, compare with the limit, train."""

    def train(key, architecture, width):
        x, y = draw_data(architecture)
        module, limit = MODULES[architecture](width, DEPTH), limits[architecture]
        start = module.init(key, x)
        step_size = 1 / extreme_eigenvalues(empirical_ntk(module.apply)(start, x)).largest
        run = descend(
            squared_loss(module.apply),
            optax.sgd(step_size),
            steps,
            every=max(steps // RECORDS, 1),
            observe={"movement": system.observables(module)["movement"]},
        )
        trajectory = run(start, (x, y))
        initial, final = (
            system.last_layer_gram(module, params, x) for params in (start, trajectory.params)
        )
        lambda_0 = extreme_eigenvalues(limit).smallest

        def error_of_draw(key):
            gram = system.last_layer_gram(module, module.init(key, x), x)
            return jnp.linalg.norm(gram - limit, 2)

        error = jax.lax.map(error_of_draw, jax.random.split(key, DRAWS)).mean()
        return trajectory, {
            "gram_error": error / jnp.linalg.norm(limit, 2),
            "gram_error_in_lambda_0": error / lambda_0,
            "gram_smallest_eigenvalue": extreme_eigenvalues(initial).smallest / lambda_0,
            "gram_change": jnp.linalg.norm(final - initial, 2) / lambda_0,
            "step_size": step_size,
            "lambda_0": lambda_0,
        }

    return train


def spectrum(architectures, depths):
    """λ_min(K^(H)) of every architecture and depth."""
    return [
        [
            system.limit_smallest_eigenvalue(MODULES[name](1, depth), draw_data(name)[0]).item()
            for depth in depths
        ]
        for name in architectures
    ]


def guarantee(study):
    """(1 − ηλ_0/2)ᵏ, of each run and record."""
    return (1 - study["step_size"] * study["lambda_0"] / 2) ** study["step"]


def slopes(study, name):
    """Exponent of the width in the mean over seeds of a result, of each architecture."""
    mean = np.log(study[name].mean("seed"))
    return mean.assign_coords(width=np.log(study.width)).polyfit("width", 1).polyfit_coefficients


def claims(study):
    """What the chapter says, and whether it holds here."""
    error, moved = slopes(study, "gram_error"), slopes(study, "largest_movement")
    smallest = study["limit_smallest_eigenvalue"]
    per_layer = np.exp(np.log(smallest).diff("depth") / study.depth.diff("depth"))
    scaled = smallest * study.depth**2
    flat = scaled.max("depth") / scaled.min("depth")
    below = (study["relative_loss"] <= guarantee(study) * (1 + 1e-12)).mean()

    def exponents(values):
        return ", ".join(f"{value:.2f}" for value in values.sel(degree=1).values)

    def near_half(values):
        return bool((abs(values.sel(degree=1) + 0.5) < 0.15).all())

    found = {
        "(a) ‖G^(H)(0) − K^(H)‖ falls like m^(−1/2); exponents of the architectures: "
        + exponents(error): near_half(error),
    }
    for name in study.architecture.values:
        if name == "fully-connected":
            rate = per_layer.sel(architecture=name)
            text = "falls by a factor per layer, all within 20 % of the last, "
            found[f"(b) {name}: λ_min(K^(H)) {text}{rate.values[-1]:.3f}"] = bool(
                (abs(rate / rate[-1] - 1) < 0.2).all()
            )
        else:
            ratio = float(flat.sel(architecture=name))
            text = "is flat, largest over smallest"
            found[f"(b) {name}: H² λ_min(K^(H)) {text} {ratio:.2f}"] = ratio < 1.5
    return found | {
        "(c) ‖W(k) − W(0)‖_F / √m falls like m^(−1/2); exponents: " + exponents(moved): near_half(
            moved
        ),
        "(d) L(k) ≤ (1 − ηλ_0/2)ᵏ L(0), at every record of every run": bool(below == 1),
    }


def spread(values, form):
    return f"{form.format(values.mean().item())} ±{form.format(values.std().item())}"


def show(study, console):
    table = rich.table.Table(title=f"H = {DEPTH}, over widths: mean ± standard deviation")
    columns = {
        "‖G^(H)(0) − K^(H)‖ / ‖K^(H)‖": (study["gram_error"], "{:.3f}"),
        "… / λ_0": (study["gram_error_in_lambda_0"], "{:.1f}"),
        "λ_min(G^(H)(0)) / λ_0": (study["gram_smallest_eigenvalue"], "{:.2f}"),
        "max ‖ΔW‖_F / √m": (study["largest_movement"], "{:.3f}"),
        "‖ΔG^(H)‖ / λ_0": (study["gram_change"], "{:.2f}"),
        "L(k)/L(0)": (study["relative_loss"].isel(step=-1), "{:.1e}"),
        "guarantee": (guarantee(study).isel(step=-1), "{:.2f}"),
    }
    for column in ("network", "width", *columns):
        table.add_column(column, justify="right")
    for architecture in study.architecture.values:
        for width in study.width.values:
            cells = (
                spread(values.sel(architecture=architecture, width=width), form)
                for values, form in columns.values()
            )
            table.add_row(str(architecture), str(width), *cells)
        table.add_section()
    console.print(table)

    table = rich.table.Table(title="λ_min(K^(H)) over depths, and times H²")
    for column in ("H", *study.architecture.values):
        table.add_column(str(column), justify="right")
    smallest = study["limit_smallest_eigenvalue"]
    for depth in study.depth.values:
        row = smallest.sel(depth=depth).values
        table.add_row(str(depth), *(f"{value:.2e} ({value * depth**2:.2e})" for value in row))
    console.print(table)
    for claim, holds in claims(study).items():
        console.print(f"{'holds' if holds else 'FAILS'}: {claim}")


def draw(study, path):
    figure = matplotlib.figure.Figure(figsize=(11, 8), layout="constrained")
    (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
    root = study.width**-0.5
    hue = {"hue": "architecture"}

    def line(name):  # m^(−1/2) through the first width of the uppermost curve
        largest = study[name].median("seed").isel(width=0).max()
        return {"$m^{-1/2}$": 1.3 * largest * root / root[0]}

    studies.against(study, "width", "gram_error", reference=line("gram_error"), ax=top_left, **hue)
    top_left.set(title="(a) the last layer's Gram matrix at initialization")
    top_left.set(
        ylabel=r"$\Vert G^{(H)}(0) - K^{(H)}\Vert\ /\ \Vert K^{(H)}\Vert$", xlabel="width m"
    )

    colors = [bars.lines[0].get_color() for bars in top_left.containers]
    smallest, depths = study["limit_smallest_eigenvalue"], study.depth.values
    for architecture, color in zip(study.architecture.values, colors, strict=True):
        top_right.loglog(
            depths, smallest.sel(architecture=architecture), "o-", color=color, label=architecture
        )
    square = 0.5 * smallest.isel(depth=0).min().item() * (depths / depths[0]) ** -2.0
    top_right.loglog(depths, square, "k--", linewidth=1.2, label="$H^{-2}$")
    top_right.set_xticks(depths, [str(depth) for depth in depths])
    top_right.set_xticks([], minor=True)
    top_right.legend(frameon=False)
    top_right.set(title="(b) its smallest eigenvalue at infinite width")
    top_right.set(ylabel=r"$\lambda_{\min}(K^{(H)})$", xlabel="depth H")

    name = "largest_movement"
    studies.against(study, "width", name, reference=line(name), ax=low_left, **hue)
    low_left.set(title="(c) how far weights move, the layer that moves most")
    low_left.set(ylabel=r"$\Vert W(k) - W(0)\Vert_F\ /\ \sqrt{m}$", xlabel="width m")

    widest = study.isel(width=-1)
    studies.learning_curve(widest, "relative_loss", ax=low_right, **hue)
    for curve, architecture in zip(list(low_right.lines), study.architecture.values, strict=True):
        promised = guarantee(widest).sel(architecture=architecture).median("seed")
        low_right.plot(study.step, promised, "--", color=curve.get_color(), linewidth=1.2)
    low_right.set(
        title=rf"(d) loss at m = {widest.width.item()}; dashed: $(1 - \eta\lambda_0/2)^k$"
    )
    low_right.set(ylabel="L(k) / L(0)", xlabel="step k", ylim=(1e-12, 3))
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    parser.add_argument("--widths", type=int, nargs="+", help="in place of the scale's")
    parser.add_argument("--depths", type=int, nargs="+", help="in place of the scale's, for (b)")
    parser.add_argument("--networks", nargs="+", choices=MODULES, help="in place of all three")
    parser.add_argument("--seeds", type=int, help="in place of the scale's")
    parser.add_argument("--steps", type=int, help="in place of the scale's")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the files")
    parser.add_argument(
        "--resume", action="store_true", help="keep finished settings, and go on from there"
    )
    options = parser.parse_args(arguments)
    scale = SCALES[options.scale]
    seeds, steps = options.seeds or scale["seeds"], options.steps or scale["steps"]
    name, start = f"du2019_depth_{options.scale}", time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 150, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)

    architectures = options.networks or list(MODULES)
    depths = options.depths or scale["depths"]
    limits = {
        architecture: system.limit(MODULES[architecture](1, DEPTH), draw_data(architecture)[0]).last
        for architecture in architectures
    }
    study = studies.run(
        build_training(steps, limits),
        seeds=seeds,
        grid={"architecture": architectures, "width": options.widths or scale["widths"]},
        dims={"movement": ["layer"]},
        folder=options.output / name if options.resume else None,
    )
    study = study.assign_coords(depth=depths)
    study = study.assign(
        limit_smallest_eigenvalue=(("architecture", "depth"), spectrum(architectures, depths)),
        largest_movement=study["movement"].isel(step=-1).max("layer"),
        relative_loss=study["loss"] / study["loss"].isel(step=0),
    )
    console.print(
        f"n = {N}, d = {D}, {PIXELS} pixels, {steps} steps of η = 1/λ_max(G(0)), "
        f"{seeds} seeds, on {jax.local_device_count()} {jax.default_backend()} devices."
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
