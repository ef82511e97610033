"""Figures 2 and 3 of Nguyen, Wong and Hegde (2019): does an autoencoder find the centres?

y = A x* + η, a mixture of m = 10 Gaussians around the columns of A in n = 784 dimensions; a ReLU
autoencoder with shared weights W and m hidden units; 50 steps of full-batch descent, bias
b⁰ = −2.5 δ = −1.25, halved at each step. W starts (i) at A + δE, δ = ½, (ii) from the m principal
components of the data, (iii) at random; σ is 0.01, 0.02, 0.03. The paper claims that the loss
converges from all three starts, but that only the first recovers A, and prints no numbers.

It prints ζ = m as the step size and leaves open whether the batch gradient is a mean or a sum,
whether columns are normalized after each step (as its theory does), and whether data are centred
for (ii). Here: mean, normalized, not centred, columns of A of norm 1, and both ζ = 1 and ζ = m,
because the claims do not hold for one and the same of them: at ζ = 1 only the first start recovers
A, but the loss from (iii) is still falling after 50 steps; at ζ = m it converges, and most runs
from (ii) and (iii) recover A, too. N(0, (1/√n) I) is read as a standard deviation: as a variance,
columns of A have norm n^¼ = 5.3, against the paper's own theory.

Units start dead: b⁰ is below −‖W_i‖ for unit columns of W and A, z = ⟨W_i, y⟩ + b⁰ < 0, so that the
first step changes nothing but the norms, and the loss at the start is ½ ‖y‖² = ½ (1 + nσ²).
"""

import argparse
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
import rich.console
import rich.table

from ntkflow import Trajectory, data, studies
from ntkflow.systems import sparse_autoencoder as system

# 50 steps of 10 N n m operations, 3 starts × 3 noises × 2 step sizes: 7e10 per seed of the small
# scale; 7e11, and 31 MB of data, of the paper's.
SCALES = {
    "small": {"samples": 1000, "seeds": 3},
    "paper": {"samples": 10_000, "seeds": 10},
}
STEPS = 50
DELTA = 0.5
STARTS = {"near A": "(i) A + δE", "PCA": "(ii) PCA", "random": "(iii) random"}
COLORS = ("#0072B2", "#D55E00", "#009E73")
STYLES = ("-", "--", ":", "-.")


def build_experiment(samples, features, units, normalize, reduction, center, literal):
    std = features**-0.25 if literal else features**-0.5

    def experiment(key, step_size, noise):
        dictionary_key, sample_key, *start_keys = jax.random.split(key, 4)
        columns = {"std": std, "normalize": False} if literal else {}
        dictionary = data.random_dictionary(dictionary_key, features, units, **columns)
        model = data.mixture_of_gaussians(dictionary, noise, unit=not literal)
        drawn = model.sample(sample_key, samples)
        starts = {
            "near A": system.perturbed(start_keys[0], dictionary, DELTA, std=std),
            "PCA": system.principal_components(drawn.y, units, center=center),
            "random": system.random_weights(start_keys[1], features, units, std=std),
        }
        run = system.learn(
            system.batch_source(drawn.y, reduction=reduction),
            system.normalized_descent(
                step_size, bias_schedule=system.geometric_bias(0.5), normalize=normalize
            ),
            STEPS,
            observe={
                "reconstruction_loss": system.sample_observables(drawn)["reconstruction_loss"],
                "recovery_error": system.observables(model)["recovery_error"],
            },
        )
        # One data set for the three starts, at once: the axis of starts follows that of records.
        run = jax.vmap(run, in_axes=(0, None), out_axes=Trajectory(0, 0, None, 1))
        trajectory = run(jnp.stack([starts[name] for name in STARTS]), -2.5 * DELTA)
        learned, _ = system.parameters(trajectory.params)
        distances = jax.vmap(lambda weights: system.align(weights, dictionary).distances)(learned)
        return trajectory, {
            "centres_found": jnp.sum(distances <= DELTA, axis=1),
            "oracle_loss": jnp.asarray((features - 1) * noise**2 / 2),
        }

    return experiment


def claims(study):
    """The claims of section 6 at one step size, and whether they hold for every seed."""
    loss, units = study["reconstruction_loss"], study.attrs["units"]
    first, last = loss.isel(step=0), loss.isel(step=-1)
    fine = np.isfinite(last)  # what diverged holds nothing
    settled = abs(last - loss.sel(step=STEPS - 10)) <= 0.1 * (first - study["oracle_loss"])
    least = {"noise": study.noise.min()}  # Figure 3 shows σ = 0.01 alone
    low = (last <= first / 2).sel(start="random", **least)
    recovered = (study["centres_found"] == units).sel(least)
    missed = (fine & (study["centres_found"] < units)).sel(least)
    settles = "the loss settles, moving by at most 10 % of its excess in the last 10 steps"
    return {
        f"(1) {STARTS['near A']}: {settles}": (settled & (last < first)).sel(start="near A"),
        f"(2) {STARTS['PCA']}: likewise": (settled & (last < first)).sel(start="PCA"),
        f"(2) {STARTS['random']}: likewise": (settled & (last < first)).sel(start="random"),
        f"(3) {STARTS['random']}: less than half of the loss is left at the least noise": low,
        f"    {STARTS['near A']}: all centres found, to δ = {DELTA}": recovered.sel(start="near A"),
        f"(4) {STARTS['PCA']}: A is not recovered": missed.sel(start="PCA"),
        f"(4) {STARTS['random']}: A is not recovered": missed.sel(start="random"),
    }


def spread(values, form="{:.2f}"):
    values = values[np.isfinite(values)]
    if not values.size:
        return "diverged"
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} – {high}"


def show(study, console):
    for step_size in study.step_size.values:
        at = study.sel(step_size=step_size)
        table = rich.table.Table(
            title=f"ζ = {step_size:g}, after {STEPS} steps: smallest – largest of the seeds"
        )
        table.add_column("start")
        for column in ("σ", "loss at 0", "½(1 + nσ²)", f"loss at {STEPS}", "½(n − 1)σ²"):
            table.add_column(column, justify="right")
        for column in ("‖π(W) − A‖ at 0", f"at {STEPS}", "centres found"):
            table.add_column(column, justify="right")
        for start, name in STARTS.items():
            for noise in study.noise.values:
                cell = at.sel(start=start, noise=noise)
                loss, error = cell["reconstruction_loss"].values, cell["recovery_error"].values
                table.add_row(
                    name,
                    f"{noise:g}",
                    f"{loss[:, 0].mean():.3f}",
                    f"{(1 + study.attrs['features'] * noise**2) / 2:.3f}",
                    spread(loss[:, -1], "{:.3f}"),
                    f"{cell['oracle_loss'].values[0]:.3f}",
                    spread(error[:, 0]),
                    spread(error[:, -1]),
                    spread(cell["centres_found"].values, "{:.0f}"),
                    end_section=noise == study.noise.values[-1],
                )
        console.print(table)
    for step_size in study.step_size.values:
        for claim, holds in claims(study.sel(step_size=step_size)).items():
            word = "holds" if bool(holds.all()) else "FAILS"
            share = f"{int(holds.sum())} of {holds.size} runs"
            console.print(f"ζ = {step_size:g}, {word}: {claim} ({share})", markup=False)


def draw(study, path):
    figure = matplotlib.figure.Figure(figsize=(12, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    axes = top.subplots(1, len(STARTS), sharey=True)
    for ax, (start, name) in zip(axes, STARTS.items(), strict=True):
        for noise, color in zip(study.noise.values, COLORS, strict=False):
            for step_size, style in zip(study.step_size.values, STYLES, strict=False):
                at = study.sel(start=start, noise=noise, step_size=step_size)
                loss = at["reconstruction_loss"]
                ax.plot(study.step, loss.median("seed"), color=color, linestyle=style)
                low, high = loss.min("seed"), loss.max("seed")
                ax.fill_between(study.step, low, high, color=color, alpha=0.15, linewidth=0)
            oracle = study["oracle_loss"].sel(noise=noise).max().item()
            ax.axhline(oracle, color=color, linewidth=0.7, alpha=0.6)
        ax.set_title(name)
        ax.set_xlabel("step")
        ax.set_ylim(0, None)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean of ½ ‖y − ŷ‖²")
    for noise, color in zip(study.noise.values, COLORS, strict=False):
        axes[-1].plot([], [], color=color, label=f"σ = {noise:g}")
    for step_size, style in zip(study.step_size.values, STYLES, strict=False):
        axes[-1].plot([], [], color="black", linestyle=style, label=f"ζ = {step_size:g}")
    axes[-1].plot([], [], color="black", linewidth=0.7, alpha=0.6, label="½(n − 1)σ²")
    axes[0].legend(*axes[-1].get_legend_handles_labels(), frameon=False, ncols=2)
    top.suptitle("Figure 2: reconstruction loss, median and range over seeds")

    noise = study.noise.values.min()
    panels = bottom.subplots(1, study.sizes["step_size"], sharey=True, squeeze=False)[0]
    places = np.arange(len(STARTS))
    for ax, step_size in zip(panels, study.step_size.values, strict=True):
        at = study["recovery_error"].sel(step_size=step_size, noise=noise)
        first, last = (at.isel(step=s).sel(start=list(STARTS)) for s in (0, -1))
        ax.bar(places, last.mean("seed"), 0.55, color="#56B4E9", label=f"after {STEPS} steps: mean")
        for seed in study.seed.values:
            label = "seeds" if seed == study.seed.values[0] else None
            ax.plot(places, last.sel(seed=seed), "o", color="black", markersize=3, label=label)
        start = first.mean("seed")
        ax.hlines(start, places - 0.28, places + 0.28, color="#D55E00", label="at step 0: mean")
        ax.set_xticks(places, STARTS.values())
        ax.set_title(f"ζ = {step_size:g}")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(r"$\|\pi(W) - A\|_F$")
    panels[-1].legend(frameon=False, loc="upper left")
    bottom.suptitle(f"Figure 3: distance to the centres, σ = {noise:g}")
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    parser.add_argument("--samples", type=int, help="in place of the scale's")
    parser.add_argument("--seeds", type=int, help="in place of the scale's")
    parser.add_argument("--features", type=int, default=784, help="n: %(default)s")
    parser.add_argument("--units", type=int, default=10, help="m: %(default)s")
    parser.add_argument("--step-size", type=float, nargs="+", help="ζ: 1 and m")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0.01, 0.02, 0.03], help="σ: %(default)s"
    )
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="columns of W after each step: %(default)s",
    )
    parser.add_argument(
        "--reduction",
        choices=("mean", "sum"),
        default="mean",
        help="of the gradient over samples: %(default)s",
    )
    parser.add_argument("--center", action="store_true", help="data, for PCA")
    parser.add_argument(
        "--literal-variance",
        action="store_true",
        help="1/√n is the variance of entries, not their standard deviation; columns of A as drawn",
    )
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the files")
    parser.add_argument(
        "--resume", action="store_true", help="keep finished settings, and go on from there"
    )
    options = parser.parse_args(arguments)
    scale = SCALES[options.scale]
    samples, seeds = options.samples or scale["samples"], options.seeds or scale["seeds"]
    start = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 132, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"nguyen2019_recovery_{options.scale}"
    study = studies.run(
        build_experiment(
            samples,
            options.features,
            options.units,
            options.normalize,
            options.reduction,
            options.center,
            options.literal_variance,
        ),
        seeds=seeds,
        grid={
            "step_size": options.step_size or [1.0, float(options.units)],
            "noise": options.noise,
        },
        dims=dict.fromkeys(("reconstruction_loss", "recovery_error", "centres_found"), ("start",)),
        folder=options.output / name if options.resume else None,
    )
    study = study.assign_coords(start=list(STARTS))
    study.attrs |= {"features": options.features, "units": options.units}
    console.print(
        f"n = {options.features}, m = {options.units}, N = {samples} samples, seeds: {seeds}; "
        f"gradient: {options.reduction}, columns {'' if options.normalize else 'not '}normalized, "
        f"PCA {'' if options.center else 'not '}centred, 1/√n a "
        f"{'variance' if options.literal_variance else 'standard deviation'}; "
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
