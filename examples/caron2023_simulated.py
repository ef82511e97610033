"""Feature learning by unequal nodes: Caron et al. (2023), Figures 1 and 2, simulated data.

f(x) = Σ_j √λ_j a_j σ(w_j·x/√d), λ_j = γ/m + (1 − γ) λ̃_j with Zipf weights λ̃_j ∝ j^(−1/α), trains
W by gradient descent with the step 1.0. For γ = 1 it stays at its kernel; the smaller γ and α, the
farther weights and kernel move. Figure 1 is (1 − γ)² Σ λ̃_j², which says how far the limiting
kernel lies from the deterministic one: its zeta formula stands beside Σ λ_j² of the m nodes, and
beside measured ‖Θ − Θ*‖_F²/C_0 of untrained networks, γ = 0. Figure 2 is five settings of (γ, α)
along the run: training risk; displacement of the node that is farthest at the end; change of the
kernel Θ, in the spectral norm; its smallest eigenvalue. Beside them stands Σ λ_j², to which the
expected drift of the kernel in the first step is proportional (Theorem 4.4). A risk is a mean
squared error. The paper repeats runs five times: here every seed draws data and weights anew, the
same in all settings.

The paper prints the loss ½ Σ (f − y)², w ~ N(0, I) and noise of deviation 1 ("paper"). Its
released code and figures have the mean of (f − y)², w ~ N(0, 2I) and noise 0.1 ("released"), ReLU
in place of the swish of Figure 2, (0.2, 0.5) in place of (0.5, 0.5), and the square root of the
spectral norm. All five settings run here, and the table gives both norms.
"""

import argparse
import itertools
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
import numpy as np
import optax
import rich.console
import rich.table
import xarray

from ntkflow import Trajectory, data, descend, features, kernel_observer, squared_loss, studies
from ntkflow.systems import node_scaling as system

# Eigenvalues are taken in float64; networks and data are float32.
jax.config.update("jax_enable_x64", True)

NAMES = ("samples", "features", "nodes", "steps", "seeds", "draws")
SCALES = {"small": (40, 20, 1000, 6000, 4, 32), "paper": (100, 50, 2000, 50_000, 5, 64)}
CONVENTIONS = {
    "released": {"loss": "mean", "variance": 2.0, "noise": 0.1},
    "paper": {"loss": "half_sum", "variance": 1.0, "noise": 1.0},
}
ACTIVATIONS = {"relu": jax.nn.relu, "swish": jax.nn.swish}
SETTINGS = ((1.0, 0.5), (0.5, 0.7), (0.5, 0.5), (0.2, 0.5), (0.0, 0.4))  # (γ, α)
ALPHAS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEARNING_RATE = 1.0
TEST_SAMPLES, RECORDS = 100, 50
STANDARD_ERRORS = 4  # that means of draws may lie off
FARTHER = 5  # times as far as for γ = 1 the farthest node moves; in the released figures, 8 to 26
ROUNDING = 1e-9  # of a risk in float32
PANELS = {
    "train_risk": "training risk",
    "displacement": "‖w_j − w_j(0)‖, farthest node",
    "ntk_change": "‖Θ − Θ(0)‖₂",
    "ntk_smallest_eigenvalue": "λ_min(Θ)",
}
# At paper scale, per setting: training and test risk, displacement, √‖Θ − Θ(0)‖, λ_min(Θ(0)) and
# λ_min(Θ). Released: means over 5 seeds, read from the vector paths of the released figures, which
# leave out (0.5, 0.5). Paper: one run of another program.
REFERENCE = {
    ("relu", "released"): (
        (1.5e-6, 0.0377, 0.919, 0.0276, 0.00375, 0.00376),
        (4.7e-6, 0.0414, 7.42, 0.1045, 0.00314, 0.00307),
        (),
        (1.37e-4, 0.0424, 11.48, 0.1787, 0.00161, 0.00148),
        (3.1e-3, 0.0476, 24.35, 0.2221, 0.00034, 0.00022),
    ),
    ("swish", "paper"): (
        (1.3e-9, None, 15.5, 0.046, 5.97e-5, 1.7e-4),
        (8.8e-11, None, 117.0, 0.125, 5.32e-5, 3.3e-4),
        (1.6e-10, None, 117.0, 0.152, 4.56e-5, 2.7e-4),
        (1.3e-10, None, 108.0, 0.189, 2.96e-5, 3.0e-4),
        (9.0e-10, None, 132.0, 0.224, 7.4e-6, 1.7e-4),
    ),
}


def label(gamma, alpha):
    return f"γ = {gamma:g}" if gamma == 1 else f"γ = {gamma:g}, α = {alpha:g}"


def scales_of(m, gammas, alphas):
    """λ of m nodes for each pair (γ, α), shape (pairs, m)."""
    scales = jax.vmap(lambda gamma, alpha: system.node_scales(system.zipf(m, alpha), gamma))
    return jax.jit(scales)(jnp.array(gammas), jnp.array(alphas))


def build_experiment(n, d, steps, loss, variance, noise):
    """One run of Figure 2: records of risks, displacement and kernel."""

    def experiment(key, scales, setting, activation):
        sigma = ACTIVATIONS[activation]
        x_key, y_key, key = jax.random.split(key, 3)
        x = data.sphere(x_key, n + TEST_SAMPLES, d, jnp.float32)
        y = data.sine_labels(y_key, x, noise)
        train, test = (x[:n], y[:n]), (x[n:], y[n:])
        # A whole number would choose code: by a real one all settings are one program.
        chosen = scales[setting.astype(int)].astype(x.dtype)
        module = system.NodeScaledNetwork(
            chosen, activation=sigma, variance=variance, param_dtype=x.dtype
        )
        test_risk = squared_loss(module.apply, "mean")
        run = descend(
            squared_loss(module.apply, loss),
            optax.sgd(LEARNING_RATE),
            steps,
            every=max(steps // RECORDS, 1),
            observe={
                "test_risk": lambda now: test_risk(now.params, test),
                "displacement": features.displacement(lambda path: "kernel" in path),
                "ntk": kernel_observer(
                    lambda variables, x: system.gram(variables, x, activation=sigma),
                    ("smallest_eigenvalue", "change"),
                ),
            },
        )
        trajectory = run(module.init(key, x), train)
        history = dict(trajectory.history)
        history["displacement"] = features.largest_displacement(history["displacement"])
        history["train_risk"] = history.pop("loss") * (1.0 if loss == "mean" else 2 / n)
        return Trajectory(None, None, trajectory.steps, history)

    return experiment


def build_departure(activations, n, d, m, variance):
    """Figure 1, one untrained network: how far its kernel is from Θ*, on the data of all draws."""
    x = data.sphere(jax.random.key(0), n, d)

    @jax.jit
    def limits(x):
        return tuple(
            {name: f(x, activation=ACTIVATIONS[name], variance=variance) for name in activations}
            for f in (system.mean_gram, system.gram_variance)
        )

    means, spreads = limits(x)

    def experiment(key, x, means, spreads, alpha, activation):
        sigma = ACTIVATIONS[activation]
        scales = system.node_scales(system.zipf(m, alpha), 0.0)
        module = system.NodeScaledNetwork(scales, activation=sigma, variance=variance)
        gram = system.gram(module.init(key, x), x, activation=sigma)
        deviation = jnp.sum(jnp.square(gram - means[activation]))
        return {"departure": deviation / spreads[activation]}

    return experiment, (x, means, spreads)


def with_theory(departure, m):
    """Means and standard errors over draws, Σ λ_j² of m nodes, and its limit, for γ = 0."""
    alphas = departure.alpha.values
    finite = system.power_sum(scales_of(m, np.zeros(len(alphas)), alphas), 2)
    limit = system.kernel_departure(0.0, alphas)
    measured = departure["departure"]
    return departure.assign(
        mean_departure=measured.mean("draw"),
        departure_error=measured.std("draw", ddof=1) / measured.sizes["draw"] ** 0.5,
        finite_departure=("alpha", np.asarray(finite)),
        limit_departure=("alpha", np.asarray(limit)),
    )


# What the paper claims, what was measured, whether it holds.


def increases(values):
    return bool((np.diff(np.asarray(values)) > 0).all())


def listed(values):
    return ", ".join(f"{value:.2g}" for value in np.asarray(values))


def claims(study, departure, settings):
    """Claims → (measured, whether they hold), about means over seeds."""
    off = abs(departure["mean_departure"] - departure["finite_departure"])
    off = (off / departure["departure_error"]).max().item()
    rows = {
        "E ‖Θ − Θ*‖_F² = C_0 Σ λ_j²": (
            f"off by {off:.1f} standard errors at most, {departure['mean_departure'].size} means",
            off < STANDARD_ERRORS,
        )
    }
    for activation in study.activation.values:
        mean = study.sel(activation=activation).mean("seed").transpose("setting", ...)
        end, relu = mean.isel(step=-1), activation == "relu"
        far, change = end["displacement"].values, end["ntk_change"].values
        times = far[1:] / far[0]
        # Features that swish learns raise its λ_min; at the end it is in no order.
        when, moment = ("at the end", end) if relu else ("at the start", mean.isel(step=0))
        eigenvalue = moment["ntk_smallest_eigenvalue"].values
        rows |= {
            f"{activation}: the kernel changes more, the smaller γ and α": (
                listed(change),
                increases(change),
            ),
            f"{activation}: the farthest node moves least for γ = 1": (
                f"{times.min():.1f} to {times.max():.1f} times as far otherwise",
                bool((times > 1).all()),
            ),
            f"{activation}: λ_min(Θ) is the larger, the larger γ and α, {when}": (
                listed(eigenvalue),
                increases(-eigenvalue),
            ),
        }
        if relu:
            rows["relu: nodes move farther, the smaller γ and α"] = listed(far), increases(far)
            # While all settings still fall: once a risk is rounding, it tells no rate.
            falling = (mean["train_risk"] > ROUNDING).all("setting").values.cumprod()
            risk = mean["train_risk"].isel(step=max(int(falling.sum()) - 1, 0))
            rows["relu: training is faster, the larger γ and α"] = (
                f"risk at step {risk.step.item()}: {listed(risk)}",
                increases(risk),
            )
        if settings["reference"]:
            rows[f"{activation}: the farthest node moves {FARTHER} times as far for γ < 1"] = (
                f"{times.min():.1f} times at least",
                bool((times > FARTHER).all()),
            )
        if settings["reference"] and relu and settings["convention"] == "released":
            risk = end["train_risk"].values[:2]
            known = np.array([row[0] for row in REFERENCE["relu", "released"][:2]])
            rows[f"relu: the training risk is the released {listed(known)}, within a factor 2"] = (
                listed(risk),
                bool((abs(np.log2(risk / known)) < 1).all()),
            )
    return rows


def show(study, departure, settings, rows, console):
    names = list(departure.activation.values)
    table = rich.table.Table(title="How far Θ is from Θ* for γ = 0: means ± standard errors")
    for column in ("α", "Σ λ̃_j², by zeta", f"Σ λ_j², m = {settings['nodes']}"):
        table.add_column(column, justify="right")
    for activation in names:
        table.add_column(f"‖Θ−Θ*‖_F²/C_0, {activation}", justify="right")
    for alpha in departure.alpha.values:
        one = departure.sel(alpha=alpha)
        exact = (one[f"{which}_departure"].item() for which in ("limit", "finite"))
        pairs = zip(one["mean_departure"].values, one["departure_error"].values, strict=True)
        measured = (f"{mean:.4f} ±{error:.4f}" for mean, error in pairs)
        table.add_row(f"{alpha:g}", *(f"{value:.4f}" for value in exact), *measured)
    console.print(table)

    start, end = study.isel(step=0), study.isel(step=-1)
    columns = {
        "training risk": end["train_risk"],
        "test risk": end["test_risk"],
        "‖w_j−w_j(0)‖": end["displacement"],
        "√‖Θ−Θ(0)‖₂": end["ntk_change"] ** 0.5,
        "λ_min(Θ(0))": start["ntk_smallest_eigenvalue"],
        "λ_min(Θ)": end["ntk_smallest_eigenvalue"],
        "‖Θ−Θ(0)‖₂": end["ntk_change"],
    }
    for activation in names:
        known = settings["reference"] and REFERENCE.get((activation, settings["convention"]))
        title = f"{activation}, after {settings['steps']} steps: mean over seeds ± deviation"
        table = rich.table.Table(title=title + (" (reference)" if known else ""))
        for column in ("setting", "Σ λ_j²", *columns):
            table.add_column(column, justify="right")
        for i, name in enumerate(study.setting.values):
            cells = (part.sel(activation=activation, setting=name) for part in columns.values())
            texts = (f"{cell.mean().item():.3g} ±{cell.std().item():.1g}" for cell in cells)
            values = known[i] if known else ()
            row = [
                text if value is None else f"{text}\n({value:.3g})"
                for text, value in itertools.zip_longest(texts, values)
            ]
            table.add_row(name, f"{study['power_sum'].sel(setting=name).item():.4f}", *row)
        console.print(table)
    for claim, (measured, holds) in rows.items():
        console.print(f"{'holds' if holds else 'FAILS'}: {claim}; {measured}")


def draw(study, departure, path):
    names = study.activation.values
    figure = matplotlib.figure.Figure(figsize=(19, 3.8 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 1 + len(PANELS), squeeze=False)
    for (constant, *panels), activation in zip(grid, names, strict=True):
        own = departure.sel(activation=activation)
        constant.plot(own.alpha, own["limit_departure"], "k--", label="ζ(2/α)/ζ(1/α)²")
        constant.plot(own.alpha, own["finite_departure"], "k:", label="Σ λ_j²")
        constant.errorbar(
            own.alpha, own["mean_departure"], own["departure_error"], fmt="o", label="measured"
        )
        constant.set(xlabel="α", title=f"{activation}: ‖Θ − Θ*‖_F²/C_0, γ = 0")
        constant.legend(frameon=False)
        for ax, (name, title) in zip(panels, PANELS.items(), strict=True):
            for setting in study.setting.values:
                curve = study[name].sel(activation=activation, setting=setting)
                mean, deviation, least = (
                    curve.reduce(f, "seed") for f in (np.mean, np.std, np.min)
                )
                # On a logarithmic axis mean − deviation may have no place: not below any seed.
                low = np.maximum(mean - deviation, least)
                (line,) = ax.plot(study.step, mean, label=setting)
                ax.fill_between(
                    study.step, low, mean + deviation, color=line.get_color(), alpha=0.2, lw=0
                )
            scale = "log" if name in ("train_risk", "ntk_smallest_eigenvalue") else "linear"
            ax.set(yscale=scale, xlabel="step", title=f"{activation}: {title}")
        panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    add("--activation", choices=ACTIVATIONS, nargs="+", default=["relu"], help="σ: relu")
    add("--convention", choices=CONVENTIONS, default="released", help="loss, weights and noise")
    add("--loss", choices=("mean", "half_sum"), help="in place of the convention's")
    add("--variance", type=float, help="of the weights, likewise")
    add("--noise", type=float, help="deviation, likewise")
    for name in NAMES:
        add(f"--{name}", type=int, help="in place of the scale's")
    add("--output", type=Path, default=Path("results"), help="folder for the files")
    add("--resume", action="store_true", help="keep finished settings, and go on from there")
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    sizes = dict(zip(NAMES, SCALES[options.scale], strict=True))
    settings = sizes | CONVENTIONS[options.convention] | given
    if settings["draws"] < 2:
        parser.error("--draws must be 2 or more: means of draws are shown with standard errors")
    n, d, m, steps = (settings[name] for name in NAMES[:4])
    own = {name: settings[name] for name in CONVENTIONS[options.convention]}
    settings["reference"] = (n, d, m, steps) == SCALES["paper"][:4] and (
        own == CONVENTIONS[options.convention]
    )
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    activations = sorted(set(options.activation))
    name = "_".join(["caron2023_simulated", options.scale, *activations, options.convention])
    name += "".join(f"_{part}{given[part]}" for part in own if part in given)
    folders = [options.output / f"{name}_{part}" if options.resume else None for part in (1, 2)]
    console.print(
        f"n = {n}, d = {d}, m = {m}, {steps} steps of {LEARNING_RATE:g}, {options.convention}: "
        f"loss {own['loss']}, w ~ N(0, {own['variance']:g} I), noise {own['noise']:g}; "
        f"{settings['seeds']} seeds, each with its own data, on {jax.local_device_count()} "
        f"{jax.default_backend()} devices. Settings 0, 1, …: "
        f"{'; '.join(label(*pair) for pair in SETTINGS)}."
    )

    experiment, known = build_departure(activations, n, d, m, own["variance"])
    departure = studies.run(
        experiment,
        seeds=settings["draws"],
        grid={"activation": activations, "alpha": ALPHAS},
        args=known,
        folder=folders[0],
        batch=1,
    ).rename(seed="draw")
    departure = with_theory(departure, m)
    scales = scales_of(m, *zip(*SETTINGS, strict=True))
    study = studies.run(
        build_experiment(n, d, steps, **own),
        seeds=settings["seeds"],
        grid={"activation": activations, "setting": [float(i) for i in range(len(SETTINGS))]},
        args=(scales,),
        folder=folders[1],
        batch=1,  # on a CPU a product of a batch is slower than the same products in turn
    ).assign_coords(setting=[label(*pair) for pair in SETTINGS])
    study["power_sum"] = ("setting", np.asarray(system.power_sum(scales, 2)))
    show(study, departure, settings, claims(study, departure, settings), console)
    draw(study, departure, options.output / f"{name}.png")
    # One dataset of both; the draws of Figure 1 have an axis of their own.
    study["diverged"] |= bool(departure["diverged"].any())
    departure = departure.drop_vars(["diverged", "error"])
    study = xarray.merge([study, departure], combine_attrs="override")
    del settings["output"], settings["resume"]
    study.attrs["settings"] = json.dumps(settings, sort_keys=True)
    studies.save(study, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - begin:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
