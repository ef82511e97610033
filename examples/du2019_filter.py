"""Figures 6.3 and 6.4 of Du (2019): how fast stochastic gradient descent learns one filter.

f(w, Z) = (1/k) Σ_i max(w·Z_i, 0), labels f(w*, Z), loss ½ (f(w, Z) − f(w*, Z))², a fixed step and
minibatches. The thesis claims:

(6.3a) one patch, angles to ±w* truncated N(0, σ): the larger σ, the smoother the inputs, the
       smaller L(φ)/γ(φ) and β, and the faster w → w*;
(6.3b) k patches at angles N(0, σ₂) to one of those with σ = 1: the smaller σ₂, the faster;
(6.3c) patches of images, w* random: the closer the start, the faster falls the relative loss,
(6.3d) log(squared error / (mean of labels)²); the same for a Gabor filter. Losses are compared, not
       filters: on images, filters with nearly the same outputs may differ;
(6.4)  true and learned filters look alike.

It gives no numbers but σ = 1 in (b): not dimension, k, σ, σ₂, starts, step, batch, size of filters.
They are arguments here, σ is a standard deviation in radians, and starts lie at a given distance
‖w_0 − w*‖/‖w*‖ in a random direction, a seed's own, in all that is compared.

Of (a), half of the reason stands: L/γ is smaller for larger σ. β is not: in the plane it tends to
1/2π as σ → 0, for the sake of φ = π/2, and as σ → ∞, for that of φ → 0, and is least near 1.2.
Closer to w* than π/2, small σ even have the smaller λ_max(A_{w,−w*}), and are slower all the same.
Of (b): Theorem 6.3 asks for γ(φ_0) > 6 L_cross, which none of these σ₂ meets; all converge.
Of (c) and (d): a closer start stays ahead; that its loss also falls more is not to be seen.

Images are scikit-learn's digits (8 × 8, filters 5 × 5, stride 1) unless --images names files, of
MNIST say (filters 7 × 7, stride 3). Pixels are standardized by one mean and deviation for all; raw
ones, in [0, 1], make patches nearly parallel, and learning slow. The step on images is
1/λ_max(E (1/k) Σ_i Z_i Z_iᵀ): no E[Z_S Z_Sᵀ], of any region S, has a larger eigenvalue.
"""

import argparse
import hashlib
import json
import math
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
import scipy.stats
import xarray

from ntkflow import data, descend, studies
from ntkflow.systems import convolutional_filter as system

# Distances to w* fall to 10⁻⁶ within the figure; images stay in float32.
jax.config.update("jax_enable_x64", True)

SCALES = {
    "small": {"seeds": 20, "image_seeds": 6, "image_samples": 500, "image_steps": 5000},
    "paper": {"seeds": 100, "image_seeds": 20, "image_samples": 1500, "image_steps": 20_000},
}
SIGMAS = {"small": [0.1, 0.25, 0.5, 1.0, 5.0], "paper": [0.1, 0.25, 0.5, 1.0, 2.0, 5.0]}
FILTERS = ("random", "Gabor")
RECORDS = 50


def filter_at(key, w_star, distance):
    """The variables with w = w* + distance·‖w*‖·u, u uniform on the sphere."""
    direction = jax.random.normal(key, w_star.shape, w_star.dtype)
    length = distance * jnp.linalg.norm(w_star) / jnp.linalg.norm(direction)
    return {"params": {"filter": w_star + length * direction}}


def build_synthetic(options):
    """The experiment of (a) and (b), and its settings σ, σ₂.

    One patch of (a) is k equal ones, σ₂ = 0: the network and its moments are the same, exactly, and
    both parts share one program.
    """
    settings = [(sigma, 0.0) for sigma in options.sigmas]
    settings += [(1.0, sigma2) for sigma2 in options.sigmas2]
    first = math.asin(options.distance)  # φ_0, an upper bound of the angle between w_0 and w*
    angles = np.append([0.0, first], np.pi / 8 * np.arange(1, 5))

    def experiment(key, setting):
        data_key, start_key, batch_key = jax.random.split(key, 3)
        w_star = jnp.zeros(options.dimension).at[0].set(1.0)
        spread = jnp.asarray(settings)[setting.astype(int)]
        n = options.samples + options.moment_samples
        z = data.close_patches(data_key, n, options.patches, w_star, *spread)
        z, held_out = z[: options.samples], z[options.samples :]
        run = descend(
            system.loss,
            optax.sgd(options.learning_rate),
            options.steps,
            observe={"distance": lambda s: jnp.linalg.norm(s.params["params"]["filter"] - w_star)},
            every=max(options.steps // RECORDS, 1),
            batch_size=options.batch_size,
        )
        start = filter_at(start_key, w_star, options.distance)
        trajectory = run(start, (z, system.predict(w_star, z)), batch_key)
        moments = system.estimate_moments(held_out, w_star, angles)
        gamma, smoothness = moments.gamma[1], moments.smoothness[1]
        iterations = jnp.square((moments.smoothness[0] + moments.beta) / gamma)
        measured = {"gamma": gamma, "ratio": smoothness / gamma, "iterations": iterations}
        return trajectory, measured | {"beta": moments.beta, "cross": moments.cross}

    return experiment, settings


def synthetic_studies(options, folder):
    """(a) over sigma, and (b) over sigma2."""
    experiment, settings = build_synthetic(options)
    grid = {"setting": [float(i) for i in range(len(settings))]}  # traced: one program
    study = studies.run(experiment, seeds=options.seeds, grid=grid, folder=folder)
    count = len(options.sigmas)
    smoothness = study.isel(setting=slice(None, count)).rename(setting="sigma")
    closeness = study.isel(setting=slice(count, None)).rename(setting="sigma2")
    coordinates = {"sigma": options.sigmas}, {"sigma2": options.sigmas2}
    return smoothness.assign_coords(coordinates[0]), closeness.assign_coords(coordinates[1])


def build_images(options):
    """The experiment of (c) and (d), on patches (n, k, p), with a Gabor filter (p,)."""

    def experiment(key, z, gabor, teacher, distance):
        filter_key, start_key, batch_key = jax.random.split(key, 3)
        drawn = system.random_filter(filter_key, math.isqrt(gabor.size), gabor.dtype)
        w_star = jnp.where(teacher == FILTERS.index("Gabor"), gabor, drawn)
        y = system.predict(w_star, z)
        run = descend(
            system.loss,
            optax.sgd(options.image_learning_rate),
            options.image_steps,
            observe={"similarity": lambda s: jnp.cos(system.angle(s.params, w_star))},
            every=max(options.image_steps // RECORDS, 1),
            batch_size=options.batch_size,
        )
        start = filter_at(start_key, w_star, distance.astype(z.dtype))
        trajectory = run(start, (z, y), batch_key)
        history = dict(trajectory.history)
        # The recorded loss has the factor ½.
        history["relative_loss"] = jnp.log(2 * history["loss"] / jnp.square(y.mean()))
        filters = [w_star, start["params"]["filter"], trajectory.params["params"]["filter"]]
        return trajectory._replace(history=history), {"filters": jnp.stack(filters)}

    return experiment


def image_study(z, gabor, options, folder):
    teachers = [float(i) for i in range(len(FILTERS))]  # traced: one program
    study = studies.run(
        build_images(options),
        seeds=options.image_seeds,
        grid={"teacher": teachers, "distance": options.image_distances},
        args=(z, gabor),
        dims={"filters": ("which", "pixel")},
        folder=folder,
    )
    return study.assign_coords(teacher=list(FILTERS), which=["true", "start", "learned"])


def read_images(options):
    """Images (n, h, w), standardized unless asked otherwise."""
    asked = {"labels": "raw", "limit": options.image_samples, "dtype": "float32"}
    images = np.asarray(data.load(options.images, flatten=False, **asked).x)
    if images.ndim != 4:
        raise ValueError(f"{options.images} holds arrays {images.shape[1:]}; expected images.")
    images = images.mean(axis=3)  # of colours
    return images if options.pixels == "raw" else (images - images.mean()) / images.std()


def compare(values, along, sign):
    """Means, over pairs by seed, of each value less the one before, and ends of 95 % intervals."""
    ahead = sign * values.transpose("seed", along).diff(along).values
    error = scipy.stats.sem(ahead, axis=0) * scipy.stats.t.ppf(0.975, len(ahead) - 1)
    return ahead.mean(axis=0) + np.stack([0 * error, -error, error])


def claims(smoothness, closeness, images):
    """Verdict, claim and measurement."""
    told, step, last = [], smoothness.step.values[-1], images.step.values[-1]

    def tell(claim, values, along, sign, factor=True):
        found = compare(np.log(values) if factor else values, along, sign)
        _, lower, upper = found
        # Every pair has to be in order; one that is not is enough.
        verdict = "holds" if (lower > 0).all() else "FAILS" if (upper < 0).any() else "undecided"
        worst = lower.argmin() if verdict != "FAILS" else upper.argmin()
        mean, low, high = np.exp(found[:, worst]) if factor else found[:, worst]
        pair = " to ".join(f"{x:g}" for x in values[along].values[worst : worst + 2])
        told.append(
            f"{verdict}: {claim}; from {pair}, the worst pair, by {'a factor of ' * factor}"
            f"{mean:.3g} (95 %: {low:.3g} to {high:.3g}) over {values.sizes['seed']} seeds"
        )

    distance = (study["distance"].isel(step=-1) for study in (smoothness, closeness))
    tell(f"(6.3a) larger σ, smaller ‖w − w*‖ at step {step}", next(distance), "sigma", -1)
    tell("(6.3a) larger σ, smaller L/γ at φ_0", smoothness["ratio"], "sigma", -1)
    tell("(6.3a) larger σ, smaller β", smoothness["beta"], "sigma", -1)
    tell(f"(6.3b) smaller σ₂, smaller ‖w − w*‖ at step {step}", next(distance), "sigma2", 1)
    for label, teacher in zip(("(6.3c)", "(6.3d)"), FILTERS, strict=True):
        loss = images["relative_loss"].sel(teacher=teacher)
        fall = loss.isel(step=0) - loss.isel(step=-1)
        least, most = fall.min().item(), fall.max().item()
        told.append(
            f"{'holds' if least > 0 else 'FAILS'}: {label} the relative loss falls, {teacher} "
            f"filter, every seed and start; by {least:.1f} to {most:.1f}"
        )
        closer = f"{label} closer start, {{}} relative loss by step {last}"
        tell(closer.format("smaller"), loss.isel(step=-1), "distance", 1, factor=False)
        tell(closer.format("larger fall of the"), fall, "distance", -1, factor=False)
    return told


def show(smoothness, closeness, images, console):
    step = smoothness.step.values[-1]
    columns = {"gamma": "γ(φ_0)", "ratio": "L/γ(φ_0)", "beta": "β", "cross": "6 L_cross"}
    columns["iterations"] = "(L(0) + β)²/γ²(φ_0)"
    for study, along, symbol in ((smoothness, "sigma", "σ"), (closeness, "sigma2", "σ₂")):
        table = rich.table.Table(title=f"‖w − w*‖/‖w*‖ at step {step}, and moments: over seeds")
        for column in (symbol, "10, 50 and 90 %", *columns.values()):
            table.add_column(column, justify="right")
        for value in study[along].values:
            part = study.sel({along: value})
            spread = part["distance"].isel(step=-1).quantile([0.1, 0.5, 0.9], "seed").values
            means = {name: part[name].mean("seed").item() for name in columns}
            means["cross"] *= 6
            cells = (f"{mean:.3g}" for mean in means.values())
            table.add_row(f"{value:g}", " / ".join(f"{x:.1e}" for x in spread), *cells)
        console.print(table)
    title = f"Relative loss and cos ∠(w, w*), at the start and at step {images.step.values[-1]}"
    table = rich.table.Table(title=f"{title}: mean ± standard deviation over seeds")
    for column in ("filter", "‖w_0 − w*‖/‖w*‖", "loss", "→", "similarity", "→"):
        table.add_column(column, justify="right")
    for teacher in FILTERS:
        for distance in images.distance.values:
            part = images.sel(teacher=teacher, distance=distance).isel(step=[0, -1])
            cells = (
                f"{part[name][:, i].mean():.{digits}f} ±{part[name][:, i].std():.1g}"
                for name, digits in (("relative_loss", 2), ("similarity", 3))
                for i in (0, 1)
            )
            table.add_row(teacher, f"{distance:g}", *cells)
    console.print(table)
    for line in claims(smoothness, closeness, images):
        console.print(line)


def draw(smoothness, closeness, images, path):
    figure = matplotlib.figure.Figure(figsize=(14, 7.6), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    curves = {
        (0, 0): ("(6.3a) k = 1: smoothness", smoothness, "distance", "sigma", "σ"),
        (0, 2): ("(6.3b) closeness of patches", closeness, "distance", "sigma2", "σ₂"),
        (1, 0): ("(6.3c) images, random filter", images, "relative_loss", "distance", "start at"),
        (1, 1): ("(6.3d) images, Gabor filter", images, "relative_loss", "distance", "start at"),
    }
    for place, (title, study, name, hue, symbol) in curves.items():
        ax = figure.add_subplot(grid[place])
        chosen = study.sel(teacher=FILTERS[place[1]]) if study is images else study
        studies.learning_curve(chosen, name, hue=hue, ax=ax)
        ax.set(title=title, ylabel=name.replace("_", " ").replace("distance", "‖w − w*‖ / ‖w*‖"))
        ax.get_legend().set_title(symbol)
        ax.locator_params(axis="x", nbins=5)
    ax = figure.add_subplot(grid[0, 1])
    for name, label in (("ratio", "L/γ at φ_0"), ("beta", "β")):
        low, middle, high = smoothness[name].quantile([0.1, 0.5, 0.9], "seed").values
        bars = [middle - low, high - middle]
        ax.errorbar(smoothness.sigma, middle, bars, marker="o", capsize=2, label=label)
    ax.set(xscale="log", yscale="log", xlabel="σ", title="moments of (6.3a)")
    ax.legend(frameon=False)
    shown = images.isel(seed=0, distance=-1)
    largest = {teacher: abs(shown["filters"].sel(teacher=teacher)).max() for teacher in FILTERS}
    cells = grid[1, 2].subgridspec(2, 3)
    for row, teacher in enumerate(FILTERS):
        for column, which in enumerate(images.which.values):
            ax = figure.add_subplot(cells[row, column])
            picture = shown["filters"].sel(teacher=teacher, which=which).values
            picture = picture.reshape(math.isqrt(picture.size), -1)
            ax.imshow(picture, "gray", vmin=-largest[teacher], vmax=largest[teacher])
            alike = shown["similarity"].sel(teacher=teacher).values
            alike = {"true": 1, "start": alike[0], "learned": alike[-1]}[which]
            label = "" if column else f"(6.4) {teacher}"
            ax.set(xticks=[], yticks=[], title=f"{which}: cos {alike:.2f}", ylabel=label)
    figure.savefig(path, dpi=120)


def merge(parts):
    """One dataset of the three, their variables by the name of the part."""
    renamed = []
    for part, study in parts.items():
        study = study.drop_vars(["error", "diverged"])
        names = {name: f"{part}_{name}" for name in study.data_vars}
        if part == "image":
            names |= {"seed": "image_seed", "step": "image_step"}
        renamed.append(study.rename(names))
    merged = xarray.merge(renamed, combine_attrs="override")
    diverged = [bool(study["diverged"].any()) for study in parts.values()]
    return merged.assign(diverged=("part", diverged)).assign_coords(part=list(parts))


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    for key in SCALES["small"]:
        add(f"--{key.replace('_', '-')}", type=int, help="in place of the scale's")
    add("--dimension", type=int, default=2, help="p of (a) and (b): %(default)s")
    add("--sigmas", type=float, nargs="+", help="σ of (a), in place of the scale's")
    sigmas2 = [0.1, 0.25, 0.5, 1.0, 2.0]
    add("--sigmas2", type=float, nargs="+", default=sigmas2, help="σ₂ of (b): %(default)s")
    add("--patches", type=int, default=5, help="k of (b): %(default)s")
    add("--samples", type=int, default=1000, help="of (a) and (b): %(default)s")
    add("--moment-samples", type=int, default=10_000, help="for γ, L, β, L_cross: %(default)s")
    add("--distance", type=float, default=0.9, help="‖w_0 − w*‖/‖w*‖ < 1 there: %(default)s")
    add("--learning-rate", type=float, default=0.5, help="η of (a) and (b): %(default)s")
    add("--steps", type=int, default=100, help="of (a) and (b): %(default)s")
    add("--batch-size", type=int, default=32, help="samples of a step: %(default)s")
    add("--images", default="digits", metavar="PATH", help="as ntkflow.data.load reads it")
    add("--pixels", choices=("standardized", "raw"), default="standardized", help="%(default)s")
    add("--filter-size", type=int, help="5 on digits, else 7")
    add("--stride", type=int, help="1 on digits, else 3")
    gabor = "λ θ ψ σ γ, in pixels and radians; by default 0.6 of the size, π/4, 0, 0.56 λ, 0.5"
    add("--gabor", type=float, nargs=5, metavar="G", help=gabor)
    add("--image-distances", type=float, nargs="+", default=[0.1, 0.3, 0.6, 0.9], help="of starts")
    add("--image-learning-rate", type=float, help="in place of 1/λ_max")
    add("--output", type=Path, default=Path("results"), help="folder for the files")
    add("--resume", action="store_true", help="keep what is finished, and go on from there")
    options = parser.parse_args(arguments)
    if not 0 < options.distance < 1:
        parser.error(f"--distance {options.distance}: expected a number between 0 and 1")
    # What was asked for in place of a default stands in the files' name.
    name, asked = f"du2019_filter_{Path(options.images).stem}_{options.scale}", ""
    for key, value in vars(options).items():
        if value != parser.get_default(key) and key not in ("scale", "images", "output", "resume"):
            listed = value if isinstance(value, list) else [value]
            asked += f"_{key}={'-'.join(map(str, listed))}"
    name += asked if len(asked) < 100 else f"_{hashlib.sha256(asked.encode()).hexdigest()[:12]}"
    on_digits = options.images == "digits"
    size = options.filter_size or (5 if on_digits else 7)
    wave = [0.6 * size, math.pi / 4, 0.0, 0.56 * 0.6 * size, 0.5]
    filled = {"filter_size": size, "stride": 1 if on_digits else 3, "gabor": wave}
    filled |= SCALES[options.scale] | {"sigmas": SIGMAS[options.scale]}
    for key, value in filled.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if min(options.seeds, options.image_seeds) < 2:
        parser.error("--seeds and --image-seeds: expected at least 2, for errors of the means")
    for key in ("sigmas", "sigmas2", "image_distances"):
        setattr(options, key, sorted(set(getattr(options, key))))  # neighbours are compared
        if len(getattr(options, key)) < 2:
            parser.error(f"--{key.replace('_', '-')}: expected at least two, to compare")
    return options, name


def main(arguments=None):
    options, name = parse(arguments)
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140, soft_wrap=True)
    z = data.image_patches(read_images(options), options.filter_size, options.stride)
    gabor = system.gabor_filter(options.filter_size, *options.gabor, dtype=z.dtype)
    if options.image_learning_rate is None:
        rows = np.asarray(z).reshape(-1, z.shape[2])
        options.image_learning_rate = 1 / np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1].item()
    options.output.mkdir(parents=True, exist_ok=True)
    console.print(
        f"(a), (b): p = {options.dimension}, {options.samples} samples, k = {options.patches} in "
        f"(b), ‖w_0 − w*‖ = {options.distance} ‖w*‖, {options.steps} steps of "
        f"{options.learning_rate} on batches of {options.batch_size}, {options.seeds} seeds. (c), "
        f"(d): {len(z)} images, {options.pixels} pixels, {z.shape[1]} patches of "
        f"{options.filter_size}², stride {options.stride}, {options.image_steps} steps of "
        f"{options.image_learning_rate:.3g}, {options.image_seeds} seeds, Gabor filter "
        f"{', '.join(f'{x:.3g}' for x in options.gabor)}. On {jax.local_device_count()} "
        f"{jax.default_backend()} devices."
    )
    folders = [options.output / f"{name}_{part}" if options.resume else None for part in (1, 2)]
    smoothness, closeness = synthetic_studies(options, folders[0])
    images = image_study(z, gabor, options, folders[1])
    parts = {"sigma": smoothness, "sigma2": closeness, "image": images}
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of runs that diverged
        show(*parts.values(), console)
        draw(*parts.values(), options.output / f"{name}.png")
    study = merge(parts)
    settings = {k: v for k, v in vars(options).items() if k not in ("output", "resume")}
    study.attrs["settings"] = json.dumps(settings, sort_keys=True)
    studies.save(study, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - begin:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
