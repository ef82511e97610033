"""The scale of the initialization decides what is learned: Song et al. (2021), Figure 1.

Two-layer GELU networks f(x) = V φ(W x), both layers trained, W ~ N(0, ω₁²), V ~ N(0, ω₂²), with
ω₁ω₂ fixed at He's product. The claims: (1) SGD reaches zero training error for every ω₂, as Theorem
3 suggests; (2) the test error improves as ω₂/ω₁ grows; (3) He's ω₂ lies at the boundary of the
region that performs well; (4) a small ω₂/ω₁ is bound to be lazy: the network stays near its
linearization, by the bound (82) to (84).

A teacher (He's initialization, cross-entropy) is trained until its training error is zero, and its
labels replace those of the training and the test set. Students minimize the squared error against
one-hot labels by SGD with minibatches of 128.

The paper: MNIST, 784-1000-10, learning rate 0.01, 300 epochs, 10 values of ω₂ in [0.002, 0.1], 5
runs each: `--scale paper --data FOLDER --samples 60000 --width 1000 --epochs 300 --learning-rate
0.01`. Without files: scikit-learn's digits, some to train on and the others to test, a width of
256, and ω₂ in the same proportion to He's as there. What the paper leaves open, as taken here:

- "Normalized" inputs: standardized pixels, scaled to norm 1 as Assumption 2 wants.
- The squared error: its mean over samples and outputs, as PyTorch's.
- The learning rate. The paper's one for all ω₂ does not reach claim (1) on digits (`--width 1000
  --samples 1437 --epochs 300 --learning-rate 0.01 --settings 3 --seeds 1`): η β_f σ_max(∇Φ*(w₀))²,
  2 at the edge of stability, is 8.9, 0.11 and 0.004 at 0.045, 0.32 and 2.2 of He's ω₂, and the
  training errors are 62 %, 3 % and 13 %: the first is unstable, the others are too slow. By default
  each run has an η of its own, for which that number is 1.
- Error bars: the caption says 95 % confidence interval (here Student's t), the appendix standard
  deviation. Both are shown.

Beside it: the lazy bound and the gap |h − h̃| between a network and its linearization, trained on
the full batch; and Theorem 3's width beside the smallest that fits n points with random labels.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

# One JAX device per CPU core, and one thread of LAPACK on each; both are read when JAX starts.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 16)))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.ticker
import numpy as np
import optax
import rich.console
import rich.table
from scipy import stats

import ntkflow
from ntkflow import data, descend, squared_loss, studies
from ntkflow.systems import composite, shallow_smooth as system

SCALES = {
    "small": {"samples": 256, "settings": 6, "seeds": 4, "epochs": 2000, "panel": [8, 16, 32]},
    "paper": {"samples": 512, "settings": 10, "seeds": 5, "epochs": 4000, "panel": [8, 16, 24, 32]},
}
OUTPUTS, BATCH_SIZE = 10, 128
RANGE = (0.002, 0.1)  # of ω₂ in the paper, whose width is 1000
RECORDS = 20
LAZY_SAMPLES, LAZY_STEPS = 64, 500
PANEL_FEATURES, PANEL_WIDTH = 8, 32  # d_0 of the panel, and the largest width that it tries
PANEL_STEPS, FITS = 5000, 1e-2  # and what fits, of the initial loss


def load(options, samples):
    """Inputs and one-hot labels to train on and to test on."""
    choices = {"labels": "one_hot", "seed": 0, "dtype": "float32"}
    if options.data is None:
        pictures, labels = map(np.asarray, data.load("digits", **choices))
        order = np.random.default_rng(0).permutation(len(pictures))
        parts = order[:samples], order[samples:]
        train, test = ((pictures[part], labels[part]) for part in parts)
    else:
        train = data.load(options.data, limit=samples, **choices)
        test = data.load(options.data, split="test", **choices)
    mean, deviation = np.mean(train[0]), np.std(train[0])

    def normalize(x):
        x = (np.asarray(x) - mean) / deviation
        return jnp.asarray(x / np.linalg.norm(x, axis=1)[:, None])

    return tuple((normalize(x), jnp.asarray(y)) for x, y in (train, test))


def error(apply, variables, x, y):
    """The share of samples whose largest output is not that of their label."""
    wrong = jnp.argmax(apply(variables, x), axis=1) != jnp.argmax(y, axis=1)
    return jnp.mean(wrong, dtype=x.dtype)


def largest_eigenvalue(apply, variables, x):
    """σ_max(∇Φ*(w₀))², by the power method on the empirical NTK, which is never formed."""
    product = ntkflow.ntk_product(apply)

    def better(v, _):
        v = product(variables, x, x, v)
        return v / jnp.linalg.norm(v), jnp.linalg.norm(v)

    start = jnp.ones_like(apply(variables, x)) + x[:, :1]
    return jax.lax.scan(better, start / jnp.linalg.norm(start), None, length=20)[1][-1]


def train_teacher(key, width, train, batch_size, console):
    """A network without training error on the original labels; a chunk of epochs at a time."""
    x, _ = train
    module = system.ShallowSmooth(width, OUTPUTS, param_dtype=x.dtype)
    loss, chunk = ntkflow.cross_entropy_loss(module.apply), 20 * (len(x) // batch_size)
    observe = {"error": lambda s: error(module.apply, s.params, *s.data)}
    # The kernel of He's network at inputs of norm 1 is about 1, whatever the sizes: so is η.
    run = descend(loss, optax.sgd(1.0), chunk, observe=observe, every=chunk, batch_size=batch_size)
    run, variables = jax.jit(run), jax.jit(module.init)(key, x)
    remaining, chunks, state = 1.0, 0, None
    while remaining and chunks < 500:
        variables, state, _, history = run(variables, train, key, state)
        remaining, chunks = float(history["error"][-1]), chunks + 1
    console.print(f"Teacher: training error {remaining:.2%} after {20 * chunks} epochs.")
    outputs = jax.jit(lambda x: module.apply(variables, x))
    return lambda x: jax.nn.one_hot(jnp.argmax(outputs(x), axis=1), OUTPUTS, dtype=x.dtype)


def build_experiment(width, batch_size, learning_rate, product, steps):
    def experiment(key, train, test, omega2):
        omega1, omega2 = system.fixed_product(product, omega2)
        init_key, key = jax.random.split(key)
        x, y = train
        module = system.ShallowSmooth(width, OUTPUTS, omega1, omega2, param_dtype=x.dtype)
        variables = module.init(init_key, x)
        smoothness = composite.squared_loss_constants("mean", y.size).smoothness
        sharpness = smoothness * largest_eigenvalue(module.apply, variables, x)
        step_size = jnp.asarray(learning_rate or 1 / sharpness, x.dtype)
        run = descend(
            squared_loss(module.apply, "mean"),
            optax.sgd(step_size),
            steps,
            observe={
                "train_error": lambda s: error(module.apply, s.params, *s.data),
                "test_error": lambda s: error(module.apply, s.params, *test),
            },
            every=max(steps // RECORDS, 1),
            batch_size=batch_size,
        )
        trajectory = run(variables, train, key)
        # Some samples, and half of the stable step: the mean's sharpness is about theirs too.
        few, loss = (x[:LAZY_SAMPLES], y[:LAZY_SAMPLES]), lambda apply: squared_loss(apply, "mean")
        side_by_side = composite.lazy_gap(module.apply, loss, 0.5 / sharpness, LAZY_STEPS, every=10)
        lazy = side_by_side(variables, few)
        return trajectory._replace(params=None, state=None), {
            "learning_rate": step_size,
            "initial_loss": lazy.loss[0] * few[1].size,
            "lazy_gap": jnp.max(lazy.gap) / lazy.loss[0],
        }

    return experiment


def smallest_widths(samples, seeds, folder):
    """Losses of networks of many widths on n points of the sphere of R^d_0, random labels."""
    widths = 2.0 ** np.arange(int(np.log2(PANEL_WIDTH)) + 1)  # real numbers: one program for all

    def experiment(key, n, width):
        keys = jax.random.split(key, 3)
        x = data.sphere(keys[0], n, PANEL_FEATURES)
        y = jax.random.normal(keys[1], (n, 1))
        y = y / jnp.linalg.norm(y)  # Assumption 2: ‖Y‖ ≤ 1
        # A network as wide as the widest, of which `width` neurons reach the output.
        omega1 = system.he(PANEL_FEATURES, PANEL_WIDTH).omega1
        module = system.ShallowSmooth(PANEL_WIDTH, 1, omega1, jnp.sqrt(2 / width))
        used = (jnp.arange(PANEL_WIDTH) < width).astype(x.dtype)

        def apply(variables, x):
            hidden, output = system.weights(variables)
            return (system.gelu(x @ hidden) * used[None, :]) @ output

        variables = module.init(keys[2], x)
        step_size = 0.5 / largest_eigenvalue(apply, variables, x)
        loss = squared_loss(apply, "sum")
        run = descend(loss, optax.sgd(step_size), PANEL_STEPS, every=PANEL_STEPS)
        found = run(variables, (x, y)).history["loss"]
        return {"remaining": found[-1] / found[0]}

    return studies.run(
        experiment, seeds=seeds, grid={"n": samples, "width": widths.tolist()}, folder=folder,
        batch=1,
    )  # fmt: skip


def widths(panel):
    """By n: the smallest width from which on all seeds fit, NaN where none; (21); and (20)."""
    fits = (panel["remaining"] <= FITS).all("seed").transpose("n", "width").values
    from_there_on = np.logical_and.accumulate(fits[:, ::-1], axis=1)[:, ::-1]
    first = panel.width.values[from_there_on.argmax(axis=1)]
    n = panel.n.values
    required = system.required_width(
        system.constants(system.gelu), system.order_estimates(n, PANEL_FEATURES)
    )
    found = np.where(from_there_on[:, -1], first, np.nan)
    return found, system.width_order(n, PANEL_FEATURES).value, required.value


def lazy_bounds(study, x, width):
    """(82) for each ω₂, with the loss of its runs: an order, its constant being open."""
    constants = system.data_constants(x, t=2)
    values = []
    for omega2 in study.omega2.values:
        scales = system.fixed_product(study.attrs["product"], float(omega2))
        initial = float(study["initial_loss"].sel(omega2=omega2).mean())
        phi = system.constants(system.gelu, scale=scales.omega1)
        bound = system.lazy_bound(phi, constants, width, scales, d_2=OUTPUTS, initial_loss=initial)
        values.append(float(bound.value))
    return "omega2", values


def summary(runs):
    """Mean over seeds, half of the 95 % confidence interval by Student's t, standard deviation."""
    more = max(runs.sizes["seed"] - 1, 1)
    deviation = runs.std("seed", ddof=min(more, runs.sizes["seed"] - 1))  # of one seed it is 0
    half = stats.t.ppf(0.975, more) * deviation / np.sqrt(runs.sizes["seed"])
    return runs.mean("seed"), half, deviation


def claims(study, panel):
    """What the paper claims, and whether it holds."""
    he, omega2 = study.attrs["he"], study.omega2.values
    train, test = (study[name].isel(step=-1) for name in ("train_error", "test_error"))
    holds = {"(1) zero training error for every ω₂ and every seed": bool((train == 0).all())}
    if len(omega2) > 2:
        mean = test.mean("seed").values
        rank = stats.spearmanr(omega2, mean).statistic
        holds[f"(2) the test error falls as ω₂/ω₁ grows: Spearman {rank:.2f}, < −½"] = rank < -0.5
        well = mean < (mean.min() + mean.max()) / 2
        nearest = abs(np.log(omega2 / he)).argmin()
        holds["(3) He's ω₂ is in the better half of the test errors' range, a tenth of it not"] = (
            well[nearest] and not well[omega2 < he / 10].any()
        )
        rank = stats.spearmanr(study["lazy_bound"], study["lazy_gap"].mean("seed")).statistic
        holds[f"(4) the lazy gap grows with ω₂/ω₁, as its bound: Spearman {rank:.2f}, > ½"] = (
            rank > 0.5
        )
    found, _, required = widths(panel)
    holds[
        "Theorem 3: (20), with its constants, is wide enough: at most "
        f"{np.nan_to_num(found / required).max():.1g} of it is needed"
    ] = bool((found <= required).all())
    return {claim: bool(kept) for claim, kept in holds.items()}


def show(study, panel, console):
    seeds = study.sizes["seed"]
    spread = "s, ± half of the 95 % confidence interval (standard deviation)" if seeds > 1 else ""
    table = rich.table.Table(title=f"After training: mean over {seeds} seed{spread}")
    columns = ("ω₂", "ω₂/He's", "ω₂/ω₁", "η", "training error", "test error")
    for column in (*columns, "max |h − h̃|/h₀", "lazy bound"):
        table.add_column(column, justify="right")
    form = "{:.2%} ± {:.2%} ({:.2%})" if seeds > 1 else "{:.2%}"
    for omega2 in study.omega2.values:
        part = study.sel(omega2=omega2)
        table.add_row(
            f"{omega2:.4f}",
            f"{omega2 / study.attrs['he']:.3f}",
            f"{omega2**2 / study.attrs['product']:.3g}",
            f"{float(part['learning_rate'].mean()):.2g}",
            *(
                form.format(*map(float, summary(part[name].isel(step=-1))))
                for name in ("train_error", "test_error")
            ),
            f"{float(part['lazy_gap'].mean()):.1e}",
            f"{float(part['lazy_bound']):.1e}",
        )
    console.print(table)

    table = rich.table.Table(
        title=f"Smallest width that fits, d_0 = {PANEL_FEATURES} (loss below {FITS:g} of the "
        f"initial one in {PANEL_STEPS} steps, {panel.sizes['seed']} seeds), and Theorem 3"
    )
    for column in ("n", "fits from", "(21): n^{3/2}/d_0", "(20) with its constants"):
        table.add_column(column, justify="right")
    for n, found, order, required in zip(panel.n.values, *widths(panel), strict=True):
        fits = f"> {PANEL_WIDTH}" if np.isnan(found) else f"{found:.0f}"
        table.add_row(str(n), fits, f"{order:.3g}", f"{required:.1e}")
    console.print(table)
    for claim, holds in claims(study, panel).items():
        console.print(f"{'holds' if holds else 'FAILS'}: {claim}")


def draw(study, panel, path):
    figure = matplotlib.figure.Figure(figsize=(17, 4.4), layout="constrained")
    errors, curves, lazy, fits = figure.subplots(1, 4)
    omega2, he = study.omega2.values, study.attrs["he"]
    for name, label, color in (("train", "training", "#0072B2"), ("test", "test", "#D55E00")):
        mean, half, deviation = (
            part.values for part in summary(study[f"{name}_error"].isel(step=-1))
        )
        errors.fill_between(
            omega2, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0
        )
        errors.errorbar(omega2, mean, half, color=color, marker="o", capsize=3, label=label)
    errors.set(title="(a) final error: 95 % bars, ± std bands", xscale="log", xlabel="ω₂")

    colormap = matplotlib.colormaps["viridis"]
    for i, value in enumerate(omega2):
        mean = study["test_error"].sel(omega2=value).mean("seed")
        color = colormap(i / max(len(omega2) - 1, 1))
        curves.plot(study.step[1:], mean[1:], color=color, label=f"{value:.3g}")
    curves.set(title="(b) test error along the run", xlabel="step")
    curves.legend(title="ω₂", fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    for axes in (errors, curves):
        axes.set_ylabel("wrong labels")
        axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))

    mean, half, _ = (part.values for part in summary(study["lazy_gap"]))
    lazy.errorbar(omega2, mean, half, marker="o", capsize=3, label="max |h − h̃| / h₀")
    scale = mean[-1] / study["lazy_bound"].values[-1]
    lazy.plot(omega2, scale * study["lazy_bound"], "k--", label=f"lazy bound × {scale:.1g}")
    lazy.set(title="(c) gap to the linearized network", xscale="log", yscale="log", xlabel="ω₂")
    for axes in (errors, lazy):
        axes.axvline(he, color="gray", linestyle="--", label="He's ω₂")
        axes.legend()

    labels = ("measured", "(21): n^{3/2}/d_0", "(20) with its constants")
    for line, label, values in zip(("o-", "--", ":"), labels, widths(panel), strict=True):
        fits.plot(panel.n, values, line, color="#009E73", label=label)
    fits.set(title=f"(d) width that fits n points, d_0 = {PANEL_FEATURES}", xlabel="n")
    fits.set(xscale="log", yscale="log", ylabel="d_1")
    fits.set_xticks(panel.n.values, panel.n.values.astype(str), minor=False)
    fits.set_xticks([], minor=True)
    fits.legend()
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    add("--data", type=Path, help="MNIST's files; scikit-learn's digits otherwise")
    add("--samples", type=int, help="to train on, in place of the scale's")
    add("--width", type=int, default=256, help="d_1: %(default)s")
    add("--settings", type=int, help="values of ω₂, in place of the scale's")
    add("--seeds", type=int, help="in place of the scale's")
    add("--epochs", type=int, help="in place of the scale's")
    add("--learning-rate", type=float, help="one η for all ω₂; otherwise a stable one for each run")
    add("--panel-samples", type=int, nargs="+", help="n of panel (d), in place of the scale's")
    add("--output", type=Path, default=Path("results"), help="folder for the files")
    add("--resume", action="store_true", help="keep finished settings, and go on from there")
    options = parser.parse_args(arguments)
    scale = SCALES[options.scale]
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"song2021_init_scale_{options.scale}"

    train, test = load(options, options.samples or scale["samples"])
    (n, d_0), width = train[0].shape, options.width
    batch_size = min(BATCH_SIZE, n)
    steps = (options.epochs or scale["epochs"]) * (n // batch_size)
    he = system.he(d_0, width)
    teacher = train_teacher(jax.random.key(0), width, train, batch_size, console)
    wrong = jnp.mean(jnp.argmax(teacher(test[0]), axis=1) != jnp.argmax(test[1], axis=1))
    train, test = ((x, teacher(x)) for x, _ in (train, test))
    console.print(
        f"{d_0}-{width}-{OUTPUTS}, {n} samples to train on, {len(test[0])} to test; the teacher's "
        f"error on these is {float(wrong):.2%}. {steps} steps of SGD on batches of {batch_size}."
    )
    product, proportion = float(he.omega1 * he.omega2), (1000 / width) ** 0.5
    study = studies.run(
        build_experiment(width, batch_size, options.learning_rate, product, steps),
        seeds=options.seeds or scale["seeds"],
        grid={"omega2": np.geomspace(*RANGE, options.settings or scale["settings"]) * proportion},
        args=(train, test),
        folder=options.output / name if options.resume else None,
        batch=1,  # seeds one after another: a program for many at once takes longer to compile
    )
    study.attrs |= {"he": float(he.omega2), "product": product}
    study["lazy_bound"] = lazy_bounds(study, train[0][:LAZY_SAMPLES], width)
    panel = smallest_widths(
        options.panel_samples or scale["panel"],
        study.sizes["seed"],
        options.output / f"{name}_widths" if options.resume else None,
    )
    show(study, panel, console)
    draw(study, panel, options.output / f"{name}.png")
    study["panel_remaining"] = panel["remaining"].rename(n="panel_n", width="panel_width")
    study.attrs["settings"] = json.dumps(vars(options), default=str)
    studies.save(study, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - begin:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
