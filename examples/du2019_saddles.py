"""Figures 7.1 to 7.4 of Du (2019): gradient descent stays exponentially long at saddle points.

The octopus has d saddle points in a row. Descent comes closer to each than to the one before, and
stays longer by a factor; perturbed descent (Algorithm 2) stays as long at all. As in section 7.5:
η = 1/(4L), t_thres = 1, g_thres = γe/100, r = e/100; τ = e. Neither γ, L nor the starts are printed
there: here γ = 1, L is an argument, the figures show one start, NumPy's default_rng(0), and the
claims are held against many, uniform on [−1, 1]^d.

Descent is run step by step, in arithmetic that does not underflow and, beside it, in plain float64,
which ends at a saddle point for good; its escape times are also found in closed form, in any
dimension, and for the η = 1/ℓ < 1/(4L) that Theorem 7.3 asks for.
"""

import argparse
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
import matplotlib
import matplotlib.figure
import numpy as np
import rich.console
import rich.table
import xarray

from ntkflow import studies
from ntkflow.systems import saddles as system

# Escape times have more digits than float32; and it is float64 that is shown to fail.
jax.config.update("jax_enable_x64", True)

SMOOTHNESS = [1.0, 1.5, 2.0, math.e, 3.0]
SCALES = {
    "small": {"dimensions": [5, 10, 20], "seeds": 40, "steps": 20_000},
    "paper": {"dimensions": [5, 10, 20, 40], "seeds": 400, "steps": 100_000_000},
}
SADDLES = 50  # of the closed form
GAMMA, TAU = 1.0, math.e
NOISE = {"radius": TAU / 100, "gradient_threshold": GAMMA * TAU / 100, "waiting_time": 1}
PATIENCE = 72  # steps of perturbed descent per saddle point
ORIGINS, RULES = ["uniform", "default_rng(0)"], ["1/(4L)", "1/ℓ"]
FIRST = np.random.default_rng(0).uniform(-1, 1, SADDLES)  # d coordinates are its first d
BLUE, RED, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#FF1493"


def constants_of(smoothness):
    return system.Constants(smoothness, GAMMA, TAU)


def step_sizes(smoothness):
    """By `RULES`."""
    curvature = system.smoothness(2, constants_of(smoothness)).gradient_lipschitz
    return jnp.stack([0.25 / smoothness, 1 / curvature])


def starts(key):
    """By `ORIGINS`."""
    return jnp.stack([jax.random.uniform(key, (SADDLES,), minval=-1, maxval=1), FIRST])


def descent(key, L):
    """The escape times of gradient descent in closed form."""
    one = lambda x, eta: system.escape_times(x, constants_of(L), step_size=eta)  # noqa: E731
    points = starts(key)
    times = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(points, step_sizes(L))
    return {"start": points, "entry": times.buffer, "escape": times.stage}


def perturbed_descent(key, L, d):
    """Algorithm 2, step by step; the objective is recorded along the run from default_rng(0)."""
    simulate = lambda x: system.simulate_perturbed(  # noqa: E731
        jax.random.fold_in(key, 1),
        x,
        constants_of(L),
        step_size=0.25 / L,
        steps=PATIENCE * d,
        every=d // 5 or 1,
        **NOISE,
    )
    # One after another: a vmap would draw noise and take a second gradient at every step.
    run = jax.lax.map(simulate, starts(key)[:, :d])
    return {
        "perturbed_objective": run.objective[1].astype(jnp.float32),
        "perturbed_last": run.objective[:, -1],
        "perturbed_escape": run.times.stage,
        "perturbed_inside": run.inside,
    }


def run_studies(seeds, dimensions, smoothness, folders):
    """One dataset of both methods over all starts."""
    pair, triple = ("origin", "saddle"), ("origin", "rule", "saddle")
    dims = {"start": pair, "entry": triple, "escape": triple}
    grid = {"L": smoothness}
    study = studies.run(descent, seeds=seeds, grid=grid, dims=dims, folder=folders[0])
    dims = dict.fromkeys(("perturbed_last", "perturbed_inside"), ("origin",))
    dims |= {"perturbed_objective": ("record",), "perturbed_escape": pair}
    grid = {"d": dimensions, "L": smoothness}
    other = studies.run(
        perturbed_descent, seeds=seeds, grid=grid, dims=dims, folder=folders[1], batch=1
    )
    for part in (study, other):
        part.coords["saddle"] = np.arange(1, part.sizes["saddle"] + 1)
    kept = other.drop_vars(["diverged", "error"])
    merged = xarray.merge([study, kept], combine_attrs="override", join="outer")
    merged["diverged"] |= other["diverged"].any("d")
    return merged.assign_coords(origin=ORIGINS, rule=RULES)


def follow(start, smoothness, gaps):
    """Descent step by step, scaled and in plain float64, recorded every `gaps` steps.

    T_k is counted: the number of steps at which stage k had not been reached.
    """
    constants, eta = constants_of(smoothness), 0.25 / smoothness

    def step(_, now):
        x, plain, late, inside = now
        both = jnp.stack([system.from_scaled(x), plain])
        late += system.stage(both[0], constants) < jnp.arange(1, len(start) + 1)
        inside &= system.in_domain(both, constants).all()
        path = system.simulate(x, constants, step_size=eta, steps=1).x
        plain -= eta * system.gradient(plain, constants)
        return jax.tree.map(lambda entry: entry[-1], path), plain, late, inside

    def record(now, gap):
        now = jax.lax.fori_loop(0, gap, step, now)
        both = jnp.stack([system.from_scaled(now[0]), now[1]])
        return now, {
            "objective": system.octopus(both, constants),
            "stage": system.stage(both, constants),
            "log10_size": system.log_magnitude(now[0]) / math.log(10),
        }

    begin = (system.to_scaled(start), start, jnp.zeros(len(start), int), jnp.array(True))
    (_, _, late, inside), path = jax.lax.scan(record, begin, gaps)
    return path | {"counted_escape": late, "inside": inside}


def figure_runs(dimensions, smoothness, steps):
    """Descent from default_rng(0) for every L; the distances of records grow geometrically."""
    at = np.unique([0, *np.geomspace(1, steps, 600).round()]).astype(int)
    along = jax.jit(jax.vmap(follow, (None, 0, None)))
    two = ("L", "iteration", "arithmetic")
    axes = {"objective": two, "stage": two, "log10_size": (*two[:2], "saddle")}
    axes |= {"counted_escape": ("L", "saddle"), "inside": ("L",)}
    parts = []
    for d in dimensions:
        path = along(jnp.asarray(FIRST[:d]), jnp.array(smoothness), np.diff(at, prepend=0))
        columns = {name: (axes[name], np.asarray(path[name])) for name in axes}
        coords = {"L": smoothness, "saddle": np.arange(1, d + 1), "iteration": at}
        parts.append(xarray.Dataset(columns, coords | {"arithmetic": ["scaled", "float64"]}))
    return xarray.concat(parts, xarray.Variable("dimension", dimensions), join="outer")


def values(study, name, *last, **chosen):
    return study[name].sel(**chosen).transpose(..., *last).values


def limits(smoothness):
    """By which factor escape times grow in the end, shape (L, rules)."""
    ratio = lambda L, eta: system.growth_ratio(constants_of(L), step_size=eta).value  # noqa: E731
    return np.array([[ratio(L, eta) for eta in step_sizes(L).tolist()] for L in smoothness])


def ratios_of(escape):
    """(T_{k+1} − T_k) / (T_k − T_{k−1}) over the last axis, T_0 = 0."""
    lengths = np.diff(escape, prepend=0, axis=-1)
    return lengths[..., 1:] / lengths[..., :-1]


def lemmas(study):
    """Lemmas 7.2 and 7.3 with their proof, for every L and both step sizes: certificates."""
    for L in study.L.values:
        for rule, eta in zip(RULES, step_sizes(L).tolist(), strict=True):
            at = [values(study, name, "saddle", L=L, rule=rule) for name in ("entry", "escape")]
            exact = (at[1] < 2**53).all((0, 1))  # beyond, float64 does not count steps
            start = values(study, "start", "saddle", L=L)[..., exact]
            times = system.EscapeTimes(*(array[..., exact] for array in at))
            yield system.certificate_escape_times(times, start, constants_of(L), step_size=eta)


def spread(numbers, form=".2f"):
    return f"{np.min(numbers):{form}} to {np.max(numbers):{form}}"


def claims_of_descent(study, shown):
    """What the thesis says, what was measured, whether it holds."""
    smoothness, escape = study.L.values, values(study, "escape", "L", "rule", "saddle")
    limit = limits(smoothness)
    late = np.abs(ratios_of(escape)[..., 9:] / limit[..., None] - 1).max()
    text = f"from the tenth on to {late:.0e}, both step sizes, all starts"
    yield "times at saddle points grow by 1 + ln(1/(1−2ηL)) / ln(1+2ηγ)", text, late < 0.01
    most, less = (limit / (1 + smoothness / GAMMA)[:, None]).T
    text = f"at η = 1/(4L) by {spread(most)} times that, at 1/ℓ by {spread(less)}"
    yield "section 7.5: they grow by (L+γ)/γ", text, abs(most - 1).max() < 0.01
    held = [(one.applies & one.holds, one.claims[-2].ratio) for one in lemmas(study)]
    held, used = np.array([one for one, _ in held]), np.array([one for _, one in held])
    text = f"{held.mean():.0%} of {held.size} runs, every d with T_d < 2⁵³; T_d is "
    text += f"{1 / used.max():.1f} times its bound or more"
    yield "Lemmas 7.2 and 7.3; T_d ≥ ((L+γ)/γ)^(d−1) / (2ηγ)", text, held.all()

    last, d = shown.isel(iteration=-1), shown.dimension.values[:, None]
    reached = values(last, "stage", "arithmetic", "dimension", "L")
    passed = shown.saddle.values <= reached[0][..., None]
    counted = values(shown, "counted_escape", "dimension", "L", "saddle")
    closed = values(study, "escape", "L", "saddle", rule=RULES[0], origin=ORIGINS[1], seed=0)
    same = (counted == closed[:, : counted.shape[-1]])[passed]
    text = f"{same.sum()} of {same.size}, up to {counted[passed].max():.0f}"
    yield "step by step, descent takes the times of the closed form", text, same.all()
    lowest = d * np.array([float(system.minimum_value(1, constants_of(L))) for L in smoothness])
    off = values(last, "objective", "dimension", "L", arithmetic="scaled") / lowest - 1
    off = np.abs(off[reached[0] == d])
    text = f"{off.size} of {reached[0].size} runs, to {off.max(initial=0):.0e}"
    yield "it reaches f* = −dν where it has the time", text, (off < 1e-6).all()
    stuck = np.argwhere(reached[1] < reached[0])
    lost = [f"{reached[1, i, j]} of {d[i, 0]} (L = {smoothness[j]:.3g})" for i, j in stuck]
    text = f"at stage {', '.join(lost)}" if lost else "the steps are too few to see it"
    shows = bool(lost) and (reached[1] <= reached[0]).all()
    yield "plain float64 ends at saddle points, scaled arithmetic does not", text, shows


def claims_of_perturbed(study, shown):
    smoothness, dimensions = study.L.values, study.d.values
    escape = values(study, "perturbed_escape", "d", "L", "saddle")
    done = np.stack([escape[..., i, :, d - 1] for i, d in enumerate(dimensions)], -2)
    lowest = [float(system.minimum_value(1, constants_of(L))) for L in smoothness]
    above = values(study, "perturbed_last", "d", "L") - dimensions[:, None] * np.array(lowest)
    # Noise comes where 2L ‖x − x*‖ ≤ g_thres, and then descent comes closer.
    allowed = NOISE["radius"] + NOISE["gradient_threshold"] / (2 * smoothness)
    above = above / (smoothness * allowed**2)
    text = f"{np.isfinite(done).mean():.0%} of {done.size} runs; f − f* ends at {above.max():.2f} "
    text += "L(r + g_thres/2L)² or less"
    holds = np.isfinite(done).all() and (above <= 1).all()
    yield "perturbed descent reaches a minimum in every seed", text, holds
    stays = np.diff(escape, axis=-1).mean((0, 1))[..., 1:]  # the start decides on two
    flat = [row[:, d - 3] / row[:, 0] for d, row in zip(dimensions, stays, strict=True)]
    mean = np.nanmean(stays, axis=-1)
    units = spread(mean * GAMMA / (4 * smoothness), ".1f")
    text = f"at the last {spread(flat)} of that at the third; {units} times 1/(ηγ)"
    holds = np.abs(np.array(flat) - 1).max() < 0.15
    yield "its time at a saddle point is flat, some 1/(ηγ)", text, holds
    rise, ends = mean[-1] - mean[0], f"at d = {dimensions[-1]} than at {dimensions[0]}"
    expected = np.log(dimensions[-1] / dimensions[0]) / 2 / np.log1p(GAMMA / (2 * smoothness))
    text = f"{spread(rise, '.1f')} steps more per saddle {ends}; ln √(d/d′) / ln(1+2ηγ) is "
    text += spread(expected, ".1f")
    holds = (np.abs(rise - expected) < 0.2 * expected + 1).all()
    yield "so it is linear in d, but for the noise along one axis, r/√d", text, holds
    times = values(study, "escape", "saddle", "L", rule=RULES[0])[..., dimensions - 1, :]
    faster, inside = times / done, study["perturbed_inside"]
    often = spread(np.median(faster, (0, 1))[-1], ".0e")
    text = f"by {faster.min():.1f} or more; by {often} in the median at d = {dimensions[-1]}"
    yield "it is faster than descent from the same start", text, (faster > 1).all()
    text = f"{inside.size + shown['inside'].size} runs step by step, all in closed form"
    holds = bool(inside.all() & shown["inside"].all()) and np.isfinite(times).all()
    yield "no iterate of either leaves the domain", text, holds


def show(study, rows, console):
    d = study.d.values[-1]
    table = rich.table.Table(
        title="First step with |x_1|, …, |x_k| ≥ 2τ: descent from default_rng(0), "
        f"(T_k − T_k₋₁) / (T_k₋₁ − T_k₋₂), perturbed descent in the median, d = {d}"
    )
    for column in ("L", "(L+γ)/γ", "limit", *(f"k = {k}" for k in range(1, 11))):
        table.add_column(column, justify="right")
    chosen = {"origin": ORIGINS[1], "saddle": range(1, 11)}
    escape = values(study, "escape", "L", "saddle", rule=RULES[0], seed=0, **chosen)
    jumps = values(study, "perturbed_escape", "seed", "L", "saddle", d=d, **chosen)
    limit = limits(study.L.values)[:, 0]
    for i, L in enumerate(study.L.values):
        start = (f"{L:.4g}", f"{1 + L / GAMMA:.3f}", f"{limit[i]:.3f}")
        table.add_row(*start, *(f"{t:.0f}" for t in escape[i]))
        table.add_row(*[""] * 4, *(f"{ratio:.3f}" for ratio in ratios_of(escape[i])))
        own = (f"{t:.0f}" for t in np.median(jumps[:, i], axis=0) if t == t)
        table.add_row(*[""] * 3, *own, end_section=True)
    console.print(table)
    for claim, measured, holds in rows:
        console.print(f"{'holds' if holds else 'FAILS'}: {claim}; {measured}")


def contour(ax, f, x, y, title):
    level = np.asarray(jax.jit(f)(np.stack(np.meshgrid(x, y), -1)))
    ax.contourf(x, y, level, 30, cmap="viridis")
    ax.contour(x, y, level, 30, colors="white", linewidths=0.3)
    ax.set(xlabel="x_1", ylabel="x_2", title=title)


def walk(f, starts, eta, steps):
    """Gradient descent, shape (starts, coordinates, steps + 1)."""
    slope, points = jax.jit(jax.vmap(jax.grad(f))), [np.array(starts)]
    for _ in range(steps):
        points.append(points[-1] - eta * np.asarray(slope(points[-1])))
    return np.stack(points, -1)


def mark(ax, saddles, minima=None):
    ax.plot(*np.transpose(saddles), "o", color="deepskyblue", mec="black", label="saddle points")
    if minima is not None:
        ax.plot(*np.transpose(minima), "*", color="red", mec="black", ms=15, label="minima")


def draw_landscapes(figure, places):
    """Figures 7.1 and 7.2."""
    band, far, flat, octopus = (figure.add_subplot(places[i]) for i in (0, 1, 2, 4))
    line = {"color": PINK, "lw": 1.5, "marker": ".", "ms": 5}
    uniform, y = np.random.default_rng(0).uniform, np.linspace(-1, 1, 101)
    thin = 1.5**-7.0
    for ax, f, left, low, high in (
        (band, system.thin_band, -1, (-1, -thin), (1, thin)),
        (far, system.far_start, -11, (-10.5, -1), (-8.5, 1)),
    ):
        title = "a: start in a thin band" if ax is band else "b: start far away"
        contour(ax, f, np.linspace(left, 1, 301), y, f"Figure 7.1{title}")
        for run in walk(f, uniform(low, high, (6, 2)), 0.25, 30):
            ax.plot(*run, **line)
        ax.fill_between([low[0], high[0]], low[1], high[1], color="red", alpha=0.5, lw=0)
        ax.set(xlim=(left, 1), ylim=(-1, 1))
        mark(ax, [[0, 0]])
    signs, eta = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]), 0.25 / math.e
    for ax, low, begin in ((flat, 0, [[0.6, 0.9]]), (octopus, -1, uniform(-1, 1, (24, 2)))):
        x, arms = np.linspace(6 * TAU * low, 6 * TAU, 301), signs if low else signs[:1]
        title = "c: the octopus, L = e" if low else "a: the tube, L = e"
        contour(ax, system.octopus, x, x, f"Figure 7.2{title}")
        for run in walk(system.octopus, begin, eta, 150):
            ax.plot(*run, **line)
        mark(ax, [s * np.array(p) for p in system.saddle_points(2) for s in arms], arms * 4 * TAU)
        ax.set_aspect("equal")
    flat.legend(loc="upper left")
    solid = figure.add_subplot(places[3], projection="3d")
    for i in range(4):  # the boxes of (7.5)
        low, size = [2 * TAU] * i + [0] * (3 - i), ([4 * TAU] * i + [2 * TAU, TAU, TAU])[:3]
        solid.bar3d(*low, *size, color="C0", alpha=0.12, edgecolor="0.4", lw=0.4, shade=False)
    (run,) = walk(system.octopus, [[0.6, 0.9, 0.8]], eta, 700)
    solid.plot(*run, color=PINK, lw=2)
    mark(solid, system.saddle_points(3), [system.minimum(3)])
    solid.set_box_aspect(None, zoom=0.82)
    solid.view_init(22, -52)
    solid.set(xlabel="x_1", ylabel="x_2", zlabel="x_3", title="Figure 7.2b: the tube, d = 3")
    solid.set(xticks=(0, 5, 10, 15), yticks=(0, 5, 10, 15), zticks=(0, 5, 10, 15))


def draw_objectives(axes, study, own, number):
    """Figures 7.3 and 7.4: one start, one panel for every L."""
    d = own.dimension.item()
    for ax, L in zip(axes, study.L.values, strict=True):
        unit, run = system.offset(constants_of(L)), own.sel(L=L)
        jumps = values(study, "perturbed_objective", "record", L=L, d=d)[:20] / unit
        at = np.minimum((d // 5 or 1) * np.arange(jumps.shape[1]), PATIENCE * d)
        closed = values(study, "escape", "saddle", L=L, rule=RULES[0], origin=ORIGINS[1], seed=0)
        closed = [1, *closed[:d], 4 * closed[d - 1]]
        ax.step(closed, -np.minimum(np.arange(d + 2), d), "k:", where="post", label="closed form")
        level, stage = run["objective"] / unit, run["stage"]
        ax.plot(run.iteration, level.sel(arithmetic="scaled"), BLUE, lw=2.5, label="descent")
        lost = (stage[:, 1] < stage[:, 0]).values
        if lost.any():
            plain = level.sel(arithmetic="float64")[lost]
            ax.plot(plain.iteration, plain, "--", color=GREEN, lw=2)
            ax.plot(plain.iteration[0], plain[0], "X", color=GREEN, ms=10)
        ax.plot(at, jumps.T, color=RED, lw=0.7, alpha=0.4)
        ax.plot([], [], "--X", color=GREEN, label="descent in plain float64, stuck")
        ax.plot([], [], color=RED, label="perturbed descent, 20 seeds")
        ax.set(xscale="log", xlim=(1, closed[-1]), xlabel="iteration")
        ax.set_title(f"Figure 7.{number}: d = {d}, L = {L:.3g}")
    axes[0].set_ylabel("f / ν")
    if number == 3:
        axes[0].legend(loc="lower left", fontsize=8)


def draw_times(growth, ratio, linear, sizes, study, shown):
    """Escape times over all starts, by L; and the size of waiting coordinates."""
    k, dimensions, smoothness = study.saddle.values, study.d.values, study.L.values
    colors = matplotlib.colormaps["plasma"](np.linspace(0, 0.85, len(smoothness)))
    for L, color, (limit, _) in zip(smoothness, colors, limits(smoothness), strict=True):
        times = values(study, "escape", "saddle", L=L, rule=RULES[0]).reshape(-1, len(k))
        growth.fill_between(k, *np.quantile(times, [0.05, 0.95], axis=0), color=color, alpha=0.3)
        growth.plot(k, np.median(times, axis=0), color=color, label=f"L = {L:.3g}")
        bound = system.escape_time(k, constants_of(L), step_size=0.25 / L).value
        growth.plot(k, bound, ":", color=color)
        low, middle, high = np.quantile(ratios_of(times)[:, :11], [0.05, 0.5, 0.95], axis=0)
        bars = (middle - low, high - middle)
        ratio.errorbar(k[1:12], middle, bars, fmt="o", ms=4, color=color)
        ratio.axhline(limit, lw=1, color=color)
        ratio.axhline(1 + L / GAMMA, ls=":", lw=1, color=color)
        for d in dimensions:
            jumps = values(study, "perturbed_escape", "saddle", L=L, d=d).reshape(-1, len(k))[:, :d]
            linear.plot(k[:d], np.median(jumps, axis=0), color=color, lw=1)
            linear.plot(d, np.median(jumps[:, -1]), "o", color=color)
    for ax, style, label in (
        (growth, "k:", "bound"),
        (ratio, "k:", "(L+γ)/γ"),
        (ratio, "k", "limit"),
    ):
        ax.plot([], [], style, label=label)
        ax.legend()
    growth.set(yscale="log", xlabel="k", title="escape times T_k of descent")
    ratio.set(xlabel="k", title="their growth (T_k − T_k₋₁) / (T_k₋₁ − T_k₋₂)")
    title = f"T_k of perturbed descent, d = {', '.join(map(str, dimensions))} (•)"
    linear.set(xlabel="k", xlim=(0, None), ylim=(0, None), title=title)
    L = smoothness[np.argmin(np.abs(smoothness - math.e))]
    own = shown.isel(dimension=0).sel(L=L).dropna("saddle")
    for j in own.saddle.values:
        sizes.plot(own.iteration, own["log10_size"].sel(saddle=j), label=f"x_{j}")
    sizes.axhspan(own["log10_size"].min().item() * 1.05, -324, color="0.85", lw=0)
    title = f"log10 |x_j| of descent, d = {own.dimension.item()}, L = {L:.3g}; grey: not in float64"
    sizes.set(xlabel="iteration", xlim=(0, own["counted_escape"].max() * 1.02), title=title)
    sizes.legend(loc="lower right")


def draw(study, shown, path):
    rows, columns = 2 + shown.sizes["dimension"], study.sizes["L"]
    figure = matplotlib.figure.Figure(figsize=(23, 4.5 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 1)
    draw_landscapes(figure, grid[0].subgridspec(1, 5))
    for i, d in enumerate(shown.dimension.values):
        axes = grid[1 + i].subgridspec(1, columns).subplots(sharey=True, squeeze=False)[0]
        draw_objectives(axes, study, shown.sel(dimension=d), 3 + i)
    below = grid[rows - 1].subgridspec(1, 4, width_ratios=(1, 1, 1, 2)).subplots()
    draw_times(*below, study, shown)
    figure.savefig(path, dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    add("--dimensions", type=int, nargs="+", help="d, in place of the scale's; two are drawn")
    add("--seeds", type=int, help="starts, in place of the scale's")
    add("--steps", type=int, help="of descent in Figures 7.3 and 7.4, in place of the scale's")
    add("--smoothness", type=float, nargs="+", help="L ≥ γ = 1, in place of 1, 1.5, 2, e and 3")
    add("--output", type=Path, default=Path("results"), help="folder for the files")
    add("--resume", action="store_true", help="keep what is finished, and go on from there")
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    usual = SCALES[options.scale] | {"smoothness": SMOOTHNESS}
    settings = usual | given
    dimensions = settings["dimensions"] = sorted(set(settings["dimensions"]))
    if not 4 <= dimensions[0] <= dimensions[-1] <= SADDLES:
        parser.error(f"--dimensions must be between 4 and {SADDLES}")
    if min(settings["smoothness"]) < GAMMA:
        parser.error("--smoothness must be 1 or more: L ≥ γ")
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    as_text = lambda value: "-".join(f"{x:.6g}" for x in np.atleast_1d(value))  # noqa: E731
    changed = [f"{n}{as_text(settings[n])}" for n in usual if settings[n] != usual[n]]
    name = "_".join(["du2019_saddles", options.scale, *changed])
    folders = [options.output / f"{name}_{part}" if options.resume else None for part in (1, 2)]

    study = run_studies(settings["seeds"], dimensions, settings["smoothness"], folders)
    shown = figure_runs(dimensions[:2], settings["smoothness"], settings["steps"])
    console.print(
        f"γ = {GAMMA:g}, τ = e, η = 1/(4L), t_thres = 1, g_thres = γe/100, r = e/100; "
        f"{settings['seeds']} seeds, each with a start of its own and with default_rng(0)'s; "
        f"{settings['steps']} steps of descent in Figures 7.3 and 7.4; on "
        f"{jax.local_device_count()} {jax.default_backend()} devices."
    )
    rows = [*claims_of_descent(study, shown), *claims_of_perturbed(study, shown)]
    show(study, rows, console)
    draw(study, shown, options.output / f"{name}.png")
    result = xarray.merge([study, shown], combine_attrs="override", join="outer")
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
