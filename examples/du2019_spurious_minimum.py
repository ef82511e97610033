"""Table 5.1 and Figures 5.1b and 5.2 of Du (2019): descent to the global or the spurious minimum.

A two-layer convolutional network with weight normalization learns one filter from Gaussian inputs,
by gradient descent on the population loss. Five numbers follow a run exactly, and its fate is
certain after some nine steps (`system.outcome`), so that the whole table, 36 cells of 5000 random
initializations, takes seconds. It stands beside the thesis' table, and beside the exact integral
for ‖a*‖ → 0. The thesis gives neither ‖a*‖ nor a step size: they are arguments here, and the last
panel shows how far from the thesis the table lies for other ‖a*‖.

Figure 5.1b: the loss of a run that succeeds, and of one from another sign of the same start that
ends in the spurious minimum. Figure 5.2: angle, both errors of the output layer and the loss, and
their three phases. Both are runs of v and a themselves; k and p of Figure 5.2 are those of the
thesis, (1ᵀa*)² = 0.3 ‖a*‖², ‖a*‖ = 1 and the step 0.1 are not given there.
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
import matplotlib.figure
import numpy as np
import optax
import rich.console
import rich.table
import xarray

from ntkflow import descend, studies
from ntkflow.systems import weight_normalized_filter as system

# Figure 5.2 goes down to what float32 does not resolve.
jax.config.update("jax_enable_x64", True)

PATCHES, RATIOS = (25, 36, 49, 64, 81, 100), (0, 1, 4, 9, 16, 25)
TABLE_5_1 = np.array(
    [
        [0.50, 0.55, 0.73, 1, 1, 1],
        [0.50, 0.53, 0.66, 0.89, 1, 1],
        [0.50, 0.53, 0.61, 0.78, 1, 1],
        [0.50, 0.51, 0.59, 0.71, 0.89, 1],
        [0.50, 0.53, 0.57, 0.66, 0.81, 0.97],
        [0.50, 0.50, 0.57, 0.63, 0.75, 0.90],
    ]
)
CELLS = ("patches", "ratio")
NAMES = dict(zip(CELLS, (list(PATCHES), list(RATIOS)), strict=True))
# Initializations per cell, starts that are run from all four signs and for how long, curves.
SCALES = {
    "small": {"runs": 1000, "starts": 20, "verify": 20_000, "curves": 12},
    "paper": {"runs": 5000, "starts": 100, "verify": 60_000, "curves": 60},
}
DEFAULTS = {"norm": 0.5, "share": 0.9, "p": 6, "step_size": 0.1, "steps": 600}
NORMS = (0.1, 0.25, 1.0, 2.0)  # other ‖a*‖
CURVES = {"k": 20, "p": 25, "ratio": 0.3, "norm": 1.0}
PORTRAIT, PORTRAIT_RUNS = (25, 4), 90  # k and ratio
QUANTITIES = {
    "angle": "φ",
    "output_error": "‖a − a*‖",
    "sum_error": "|1ᵀa − 1ᵀa*|",
    "loss": "loss ℓ",
}
RECORDS = (*QUANTITIES, "overlap", "total", "filter_norm")
NEAR, EARLY, STANDARD_ERRORS = 0.05, 20, 3
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"


def cells(norm):
    """All 36 problems, and their step sizes up to the share."""
    k, ratio = np.array(PATCHES, float)[:, None], np.array(RATIOS, float)[None]
    return system.table_problem(k, ratio, norm), 2 * np.pi / (k + np.pi - 1)


def table_of(norm, settings):
    """How often every cell succeeds, by the names in `system.Success`."""
    problem, bound = cells(norm)
    key = jax.random.fold_in(jax.random.key(0), int(1000 * norm))
    found = system.success_probability(
        key, problem, settings["p"], settings["runs"], step_size=settings["share"] * bound
    )
    columns = {name: (CELLS, values) for name, values in jax.device_get(found)._asdict().items()}
    return xarray.Dataset(columns).assign_coords(norm=norm, **NAMES)


def run_signs(starts, settings):
    """All four signs of some starts of every cell, and where they are after many steps."""
    (problem, bound), steps = cells(settings["norm"]), settings["verify"]
    step_size = settings["share"] * bound
    four = system.sign_trials(system.Reduced(*(part[: settings["starts"]] for part in starts)))
    found = np.asarray(system.run_until_decided(four, problem, step_size).outcome)
    _, path = jax.device_get(system.simulate(four, problem, step_size, steps, every=steps))
    angle, overlap = np.arctan2(path.orthogonal, path.parallel)[..., -1], path.overlap[..., -1]
    lost = (found == -1) & (angle > np.pi / 2) & (overlap < 0)
    columns = {
        "sign_outcome": found,
        "arrived": np.where(found == 1, angle < 0.1, lost),
        "elsewhere": found * overlap <= 0,  # aᵀa* has the wrong sign
    }
    return xarray.Dataset({name: (("sign", "start", *CELLS), c) for name, c in columns.items()})


def build_curves(step_size, steps):
    """Runs of v and a themselves from all four signs of one start."""

    def experiment(key):
        teacher_key, key = jax.random.split(key)
        teacher = system.make_teacher(teacher_key, **CURVES)
        observe = system.observables(teacher)
        run = descend(system.population_loss, optax.sgd(step_size), steps, observe=observe)
        start = system.sign_trials(system.initialize(key, teacher))
        return jax.vmap(lambda variables: run(variables, teacher).history)(start)

    return experiment


def changes(own, runs, axis):
    """How the success probability changes along an axis, in standard errors."""
    share, error = own["probability"].values, own["standard_error"].values
    spread = np.hypot(np.delete(error, 0, axis), np.delete(error, -1, axis))
    return np.diff(share, axis=axis) / np.maximum(spread, 1 / runs)


def claims(found, signs, curves, problem, spurious, settings):
    """What the thesis says → what was measured, and whether it holds."""
    own, runs = found.sel(norm=settings["norm"]), settings["runs"]
    off = np.abs(own["probability"] - own["thesis"])
    worst = own.isel(off.argmax(CELLS))
    up, down = (changes(own, runs, axis) for axis in (1, 0))
    limit, smallest = found["limit"], found.isel(norm=0)
    spread = np.maximum(np.sqrt(limit * (1 - limit) / runs), 1 / runs)
    apart = np.abs((smallest["probability"] - limit) / spread).max().item()
    history = {name: curves[name].transpose(..., "iteration").values for name in RECORDS}
    rates = system.phase_rates(history, curves.iteration.values, problem)
    won = history["angle"][..., -1] < np.pi / 2
    rates = {name: 1e3 * np.nanmedian(getattr(rates, name)[won], axis=0) for name in QUANTITIES}
    plateau, end = history["loss"][~won][:, -1] / spurious, history["loss"][won][:, -1]
    end, low, high = end.max(initial=0), plateau.min(initial=np.inf), plateau.max(initial=0)
    best, least = signs["sign_outcome"].max("sign"), signs["sign_outcome"].sel(ratio=0).min("sign")
    return {
        f"Table 5.1: every cell within {NEAR} of the thesis": (
            f"at most {off.max().item():.3f} ± {worst['standard_error'].item():.3f}, k = "
            f"{worst.patches.item()}, ratio {worst.ratio.item()}; in the root mean square "
            f"{np.sqrt((off**2).mean()).item():.3f}",
            (off <= NEAR).all(),
        ),
        "success grows with (1ᵀa*)²/‖a*‖² for every k": (
            f"the worst of {up.size} changes is {up.min():+.1f} standard errors",
            (up >= -STANDARD_ERRORS).all(),
        ),
        "success falls with k for every (1ᵀa*)²/‖a*‖²": (
            f"the worst of {down.size} changes is {down.max():+.1f} standard errors",
            (down <= STANDARD_ERRORS).all(),
        ),
        "for ‖a*‖ → 0 it is the exact integral": (
            f"‖a*‖ = {smallest.norm.item():g}: at most {apart:.1f} standard errors off",
            apart <= STANDARD_ERRORS + 1,
        ),
        "every run is decided, early": (
            f"{runs * own['undecided'].sum().item():.0f} of {36 * runs} are not; after "
            f"{own['steps'].mean().item():.1f} steps on average",
            (own["undecided"] == 0).all() & (own["steps"].mean() < EARLY),
        ),
        "and goes where it was decided to": (
            f"{signs['arrived'].mean().item():.2%} of {signs['arrived'].size} runs arrive within "
            f"{settings['verify']} steps, {signs['elsewhere'].sum().item()} go elsewhere",
            (signs["arrived"].mean() > 0.99) & ~signs["elsewhere"].any(),
        ),
        "Theorem 5.4: one of four signs reaches the global minimum": (
            f"{(best == 1).mean().item():.2%} of {best.size} starts",
            (best == 1).all(),
        ),
        "Theorem 5.5: with 1ᵀa* = 0 another reaches the spurious one": (
            f"{(least == -1).mean().item():.2%} of {least.size} starts",
            (least == -1).all(),
        ),
        "Figure 5.1b: success to zero, failure to a plateau": (
            f"{end:.1e} at most; {low:.3f} to {high:.3f} of the spurious loss",
            won.any() and end < 1e-3 * spurious and 0.9 < low <= high < 1.1,
        ),
        "Figure 5.2: sum and loss fall, then slowly, then all fast": (
            "; ".join(
                f"{QUANTITIES[name]} {'/'.join(map('{:.1f}'.format, r))}"
                for name, r in rates.items()
            )
            + " thousandths per step",
            all(r[2] > 3 * r[1] for r in rates.values())
            and all(rates[name][0] > 3 * rates[name][1] for name in ("sum_error", "loss")),
        ),
    }


def show(found, rows, norm, console):
    own = found.sel(norm=norm)
    table = rich.table.Table(
        title="Table 5.1: probability of the global minimum, measured ± standard error "
        "(printed in the thesis; exact in the limit ‖a*‖ → 0)"
    )
    for column in ("k", *(f"ratio {ratio}" for ratio in RATIOS)):
        table.add_column(column, justify="right")
    for k in PATCHES:
        row = own.sel(patches=k)
        table.add_row(
            str(k),
            *(
                f"{cell['probability'].item():.3f} ± {cell['standard_error'].item():.3f} "
                f"({cell['thesis'].item():.2f}; {cell['limit'].item():.3f})"
                for cell in (row.sel(ratio=ratio) for ratio in RATIOS)
            ),
        )
    console.print(table)
    for claim, (measured, holds) in rows.items():
        console.print(f"{'holds' if holds else 'FAILS'}: {claim}; {measured}")


def draw(found, curves, starts, problem, spurious, options, path):
    figure = matplotlib.figure.Figure(figsize=(15, 9), layout="constrained")
    (both, phases, portrait), (heat, against, norms) = figure.subplots(2, 3)
    draw_curves(both, phases, curves, problem, spurious)
    draw_portrait(portrait, starts, options)
    draw_heat(heat, found.sel(norm=options["norm"]))
    draw_against(against, found.sel(norm=options["norm"]))
    off, limit = (
        np.sqrt(((found[name] - found["thesis"]) ** 2).mean(CELLS))
        for name in ("probability", "limit")
    )
    norms.plot(found.norm, off, "o-", color=BLUE, label="of the measured table")
    norms.axhline(limit.item(), ls="--", color=RED, label="of the limit ‖a*‖ → 0")
    noise = (found["thesis"] * (1 - found["thesis"])).mean().item()
    noise = np.sqrt(noise * (1 / options["runs"] + 1 / 5000) + 0.01**2 / 12)
    norms.axhline(noise, ls=":", color="black", label="expected from chance and rounding")
    norms.set(xscale="log", xlabel="‖a*‖", ylabel="root mean square", ylim=(0, None))
    norms.set_xticks(found.norm, [f"{norm:g}" for norm in found.norm])
    norms.minorticks_off()
    norms.set_title("(f) deviation from the thesis' table")
    norms.legend()
    figure.savefig(path, dpi=130)


def draw_curves(ax, phase_ax, curves, problem, spurious):
    """All signs of all seeds, and in full the run whose slow phase ends nearest to 200 steps."""
    steps = curves.iteration.values
    history = {name: curves[name].transpose(..., "iteration").values for name in RECORDS}
    ends = system.phases(history, steps, problem)
    won = history["angle"][..., -1] < np.pi / 2
    far = np.where(won & ~won.all(axis=1, keepdims=True), np.abs(ends.signal - 200), np.inf)
    seed, good = np.unravel_index(far.argmin(), far.shape)
    bad = int(won[seed].argmin())
    for losses, color in ((history["loss"][won], BLUE), (history["loss"][~won], RED)):
        ax.plot(steps, losses[:40].T, color=color, alpha=0.15, lw=0.8)
    for sign, color, label in ((good, BLUE, "success"), (bad, RED, "failure")):
        ax.plot(steps, history["loss"][seed, sign], color=color, lw=2.5, label=label)
    ax.axhline(spurious, ls="--", color="black", lw=1, label="spurious minimum")
    ax.set(yscale="log", xlabel="iteration", ylabel="loss ℓ(v, a)", ylim=(1e-6, 30))
    ax.set_title("(a) Figure 5.1b: signs of the same starts")
    for (name, label), color in zip(QUANTITIES.items(), (BLUE, RED, GREEN, "black"), strict=True):
        phase_ax.plot(steps, history[name][seed, good], color=color, label=label)
    edges = [0.0, *(min(end[seed, good], steps[-1]) for end in ends)]
    for left, right, shade in zip(edges, edges[1:], ("0.75", "0.88", "0.96"), strict=False):
        phase_ax.axvspan(left, right, color=shade, lw=0)
    phase_ax.set(yscale="log", xlabel="iteration", ylim=(1e-8, 5), xlim=(0, steps[-1]))
    phase_ax.set_title("(b) Figure 5.2: k = 20, p = 25, three phases")
    ax.legend(loc="upper right")
    phase_ax.legend(loc="lower left")


def draw_portrait(ax, starts, options):
    """Angle and overlap of random starts: a comes to rest on a curve, then v turns along it."""
    (k, ratio), norm = PORTRAIT, options["norm"]
    problem = system.table_problem(k, ratio, norm)
    eta = float(options["share"] * 2 * np.pi / (k + np.pi - 1))
    cell = (slice(PORTRAIT_RUNS), PATCHES.index(k), RATIOS.index(ratio))
    start = system.Reduced(*(part[cell] for part in starts))
    _, path = jax.device_get(system.simulate(start, problem, eta, 6000, every=8))
    angle, overlap = np.arctan2(path.orthogonal, path.parallel), path.overlap / norm**2
    turned = angle[:, -1] < np.pi / 2
    for won, color in ((turned, BLUE), (~turned, RED)):
        ax.plot(angle[won].T, overlap[won].T, color=color, lw=0.8, alpha=0.6)
        ax.plot(angle[won, 0], overlap[won, 0], ".", color=color, ms=3)
    phi = np.linspace(0, np.pi, 200)
    level = np.asarray(system.overlap_function(phi))
    rest = ((level - 1) + (np.pi - level) * ratio / (k + np.pi - 1)) / (np.pi - 1)
    ax.plot(phi, rest, "--", color="black", lw=1, label="a at rest")
    ax.plot(0, 1, "*", color=BLUE, ms=16, mec="black", label="global minimum", zorder=3)
    ax.plot(np.pi, rest[-1], "*", color=RED, ms=16, mec="black", label="spurious minimum")
    saddle = np.interp(0, -rest, phi)
    ax.plot(saddle, 0, "X", color="white", ms=10, mec="black", label="saddle", zorder=3)
    ax.set(xlabel="angle φ between v and w*", ylabel="aᵀa* / ‖a*‖²", xlim=(-0.1, np.pi + 0.1))
    ax.set_title(f"(c) {PORTRAIT_RUNS} random starts, k = {k}, ratio {ratio}")
    ax.legend(loc="upper right")


def draw_heat(ax, own):
    ax.imshow(own["probability"], cmap="RdYlBu", vmin=0.4, vmax=1.1, aspect="auto")
    for i, j in np.ndindex(6, 6):
        cell = own.isel(patches=i, ratio=j)
        ax.text(j, i - 0.08, f"{cell['probability'].item():.3f}", ha="center", va="bottom")
        thesis = f"({cell['thesis'].item():.2f})"
        ax.text(j, i + 0.08, thesis, ha="center", va="top", fontsize=8, color="0.25")
    ax.set(xticks=range(6), xticklabels=RATIOS, xlabel="(1ᵀa*)² / ‖a*‖²")
    ax.set(yticks=range(6), yticklabels=PATCHES, ylabel="k")
    ax.set_title("(d) Table 5.1: measured (the thesis')")


def draw_against(ax, own):
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(PATCHES)))
    for k, color in zip(PATCHES, colors, strict=True):
        row = own.sel(patches=k)
        ax.plot(row.any_ratio, row["limit_curve"], color=color, lw=1)
        bars = 2 * row["standard_error"]
        ax.errorbar(RATIOS, row["probability"], bars, fmt="o", ms=4, color=color, label=f"k = {k}")
        ax.plot(RATIOS, row["thesis"], "x", ms=8, color=color)
    ax.set(xlabel="(1ᵀa*)² / ‖a*‖²", ylabel="probability of the global minimum")
    ax.set_title("(e) measured •, the thesis' ×, limit ‖a*‖ → 0 —")
    ax.legend()


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    add("--runs", type=int, help="initializations of each cell, in place of the scale's")
    add("--starts", type=int, help="those of each cell that are run from all four signs, likewise")
    add("--curves", type=int, help="seeds of Figures 5.1b and 5.2, likewise")
    add("--norm", type=float, default=0.5, help="‖a*‖ of Table 5.1: %(default)s")
    add("--share", type=float, default=0.9, help="η (k + π − 1)/2π of Table 5.1: %(default)s")
    add("--p", type=int, default=6, help="entries of the filter in Table 5.1: %(default)s")
    add("--step-size", type=float, default=0.1, help="η of the curves: %(default)s")
    add("--steps", type=int, default=600, help="of the curves: %(default)s")
    add("--output", type=Path, default=Path("results"), help="folder for the files")
    add("--resume", action="store_true", help="keep finished curves, and go on from there")
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    settings = SCALES[options.scale] | given
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    usual = SCALES[options.scale] | DEFAULTS
    changed = [f"{name}{settings[name]}" for name in usual if settings[name] != usual[name]]
    name = "_".join(["du2019_spurious_minimum", options.scale, *changed])
    norm, p, share = settings["norm"], settings["p"], settings["share"]

    own = table_of(norm, settings)
    seconds = time.perf_counter() - begin
    begin_others = time.perf_counter()
    parts = [own, *(table_of(other, settings) for other in NORMS if other != norm)]
    warm = (time.perf_counter() - begin_others) / (len(parts) - 1)
    found = xarray.concat(parts, "norm").sortby("norm")
    found["thesis"] = (CELLS, TABLE_5_1)
    fine, k = np.linspace(0, 25, 301), np.array(PATCHES, float)[:, None]
    limit = np.asarray(system.limit_success_probability(fine[None], k, p))
    found["limit_curve"] = (("patches", "any_ratio"), limit)
    found["limit"] = (CELLS, limit[:, [12 * ratio for ratio in RATIOS]])
    found = found.assign_coords(any_ratio=fine)
    most = max(settings["starts"], PORTRAIT_RUNS)
    starts = system.initialize_reduced(jax.random.key(2), most, cells(norm)[0], p)
    starts = jax.device_get(starts)
    signs = run_signs(starts, settings)
    curves = studies.run(
        build_curves(settings["step_size"], settings["steps"]),
        seeds=settings["curves"],
        dims=dict.fromkeys(RECORDS, ("sign", "iteration")),
        folder=options.output / name if options.resume else None,
    )
    curves = curves.assign_coords(iteration=np.arange(settings["steps"] + 1))
    console.print(
        f"p = {p}, ‖a*‖ = {norm:g}, η = {share:g}·2π/(k + π − 1): 36 cells of "
        f"{settings['runs']} random initializations in {seconds:.1f} s ({warm:.2f} s compiled), "
        f"on {jax.local_device_count()} {jax.default_backend()} devices. Figures 5.1b and 5.2: "
        f"k = {CURVES['k']}, p = {CURVES['p']}, (1ᵀa*)² = {CURVES['ratio']:g}, ‖a*‖ = 1, "
        f"η = {settings['step_size']:g}, {settings['curves']} seeds."
    )
    teacher = jax.jit(lambda key: system.make_teacher(key, **CURVES))(jax.random.key(0))
    problem, spurious = system.reduce_teacher(teacher), float(system.spurious_loss(teacher).value)
    rows = claims(found, signs, curves, problem, spurious, settings)
    show(found, rows, norm, console)
    draw(found, curves, starts, problem, spurious, settings, options.output / f"{name}.png")
    result = xarray.merge([found, curves, signs], combine_attrs="override")
    del settings["output"], settings["resume"]
    result.attrs["settings"] = json.dumps(settings, sort_keys=True)
    studies.save(result, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - begin:.0f} s in all."
    )
    return result


if __name__ == "__main__":
    main()
