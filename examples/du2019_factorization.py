"""Figure 4.1 of Du (2019): matrix factorization by gradient descent, with and without balancing.

½ ‖UVᵀ − M*‖² (4.1) and the same plus ⅛ ‖UᵀU − VᵀV‖² (4.3), from one random small start. The thesis
claims that (a) descent on (4.1) converges to a global minimum, at a rate competitive with (4.3),
and (b) the ratio of ‖U‖_F and ‖V‖_F remains constant. It gives neither shapes nor rank, step size,
schedule or start: they are arguments here. Three schedules stand beside each other: a constant
step, the footnote's η_0 (t+1)^{−(½+δ)}, and Theorem 4.4's, whose steps add up to next to nothing.

What descent preserves is the difference UᵀU − VᵀV, not the ratio: with d_1 ≠ d_2 a small start has
‖U‖/‖V‖ near √(d_1/d_2), and the ratio goes to 1 (try --shape 100 25). Shapes are square by default.

Theorem 4.5, for rank one: with a constant step, ‖uvᵀ − M*‖_F ≤ εσ_1 after O(log(d/ε)) iterations.
Four numbers follow the iteration exactly, so that dimensions and seeds cost next to nothing.
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

from ntkflow import descend, studies
from ntkflow.systems import matrix_factorization as system

# Converged errors and the drift of the imbalance are below what float32 resolves.
jax.config.update("jax_enable_x64", True)

SCALES = {
    "small": {"shape": [30, 30], "rank": 4, "seeds": 10, "trials": 200, "steps": 1000},
    "paper": {"shape": [100, 100], "rank": 10, "seeds": 20, "trials": 1000, "steps": 2000},
}
DIMENSIONS = {"small": [30, 300, 3000], "paper": [30, 300, 3000, 30_000]}
PROBLEMS = {"(4.1)": 0.0, "(4.3)": 1.0}  # the weight of ⅛ ‖UᵀU − VᵀV‖²
ACCURATE = 1e-6  # of ‖UVᵀ − M*‖_F / ‖M*‖_F, and of ‖uvᵀ − M*‖_F / σ_1
RECORDS = 400


def build_factorization(shape, rank, steps, std, options):
    """The experiment of Figure 4.1 with ‖M*‖_F = 1.

    Schedules are powers of t + 1, problems differ by a weight: as numbers, which a study traces,
    they share one compiled program.
    """
    constant = system.constant_schedule(options.learning_rate, 1.0)
    footnote = system.power_schedule(options.learning_rate, options.excess)
    theorem = system.theorem_schedule(options.epsilon, rank, 1.0)

    def experiment(key, weight, exponent):
        target_key, key = jax.random.split(key)
        target = system.low_rank_target(target_key, *shape, rank)

        def sizes(t):
            chosen = [exponent == 0.0, exponent == 1.0]
            return jnp.select(chosen, [constant(t), theorem(t)], footnote(t))

        def loss(params, target):
            plain = system.objective(params, target)
            return plain + weight * (system.regularized_objective(params, target) - plain)

        run = descend(
            loss,
            optax.sgd(sizes),
            steps,
            observe=system.step_observables(sizes),
            every=max(steps // RECORDS, 1),
        )
        return run(system.initialize(key, *shape, rank, std), target)

    return experiment


def factorization_study(experiment, seeds, excess, folder):
    exponents = {"constant": 0.0, "footnote": 0.5 + excess, "Theorem 4.4": 1.0}
    grid = {"weight": list(PROBLEMS.values()), "exponent": list(exponents.values())}
    study = studies.run(experiment, seeds=seeds, grid=grid, folder=folder)
    names = {"problem": list(PROBLEMS), "schedule": list(exponents)}
    return study.rename(weight="problem", exponent="schedule").assign_coords(names)


def build_rank_one(options):
    """The experiment of Theorem 4.5 with σ_1 = 1: α, β, α_⊥ and β_⊥ along the run."""

    def experiment(key, d):
        std = system.rank_one_std(d, 1.0, options.c_init).value
        u_key, v_key = jax.random.split(key)
        u = std * jax.random.normal(u_key, (d,))
        v = std * jax.random.normal(v_key, (max(2 * d // 3, 1),))
        # A Gaussian start is alike in every basis: u* and v* are the first unit vectors.
        rest = (jnp.linalg.norm(factor[1:]) for factor in (u, v))
        start = system.RankOne(u[0], v[0], *rest)
        return system.simulate(start, options.c_step, 1.0, options.iterations)._asdict()

    return experiment


def rank_one_study(options, seeds, dimensions, folder):
    names = system.RankOne._fields
    study = studies.run(
        build_rank_one(options),
        seeds=seeds,
        grid={"d": dimensions},
        dims=dict.fromkeys(names, ("iteration",)),
        folder=folder,
    )
    path = system.RankOne(*(study[name].transpose("seed", "d", "iteration") for name in names))
    study["distance"] = system.product_error(path, 1.0)
    times = system.stage_times(path, 1.0, ACCURATE)
    reached = study["distance"].transpose("seed", "d", "iteration").values <= ACCURATE
    columns = {
        **{f"{name}_time": time for name, time in times._asdict().items()},
        "steps_to_accuracy": np.where(reached.any(-1), reached.argmax(-1), np.nan),
        "theorem_holds": np.empty(reached.shape[:2], bool),
        "theorem_speaks": np.ones(reached.shape[:2], bool),
    }
    for i, d in enumerate(dimensions):
        part = system.RankOne(*(numbers.values[:, i] for numbers in path))
        certificate = system.certificate_rank_one(part, 1.0, options.c_step, d, options.c_init)
        columns["theorem_holds"][:, i] = certificate.holds
        for entry in certificate.hypotheses[:4]:  # on the start; the rest want small constants
            columns["theorem_speaks"][:, i] &= entry.holds
    return study.assign({name: (("seed", "d"), values) for name, values in columns.items()})


def steps_to_accuracy(study):
    """The first record with ‖UVᵀ − M*‖_F ≤ 10⁻⁶ ‖M*‖_F; NaN where there is none."""
    accurate = np.sqrt(2 * study["objective"]) <= ACCURATE * study["target_norm"]
    return study["step"].where(accurate).min("step")


def lemma(study, rank, epsilon):
    """The certificates of Lemma 4.1 on (4.1), for every schedule."""
    chosen = study.sel(problem="(4.1)")
    names = system.step_observables(optax.constant_schedule(0.0))
    certificates = {}
    for schedule in study.schedule.values:
        part = chosen.sel(schedule=schedule)
        history = {name: part[name].transpose("seed", "step").values for name in names}
        certificates[str(schedule)] = system.certificate_gradient_descent(
            history, study.step.values, rank, epsilon
        )
    return certificates


def claims(study, rank_one, certificates, options):
    """What the thesis says, what was measured, and whether it holds."""
    constant = study.sel(schedule="constant")
    plain = constant.sel(problem="(4.1)")
    error = np.sqrt(2 * plain["objective"].isel(step=-1)) / plain["target_norm"].isel(step=-1)
    needed = steps_to_accuracy(constant).median("seed")
    pace = (needed.sel(problem="(4.1)") / needed.sel(problem="(4.3)")).item()
    ratio = plain["u_norm"] / plain["v_norm"]
    change = 100 * np.abs(ratio / ratio.isel(step=0) - 1).max("step")
    theorem = study.sel(problem="(4.1)", schedule="Theorem 4.4")
    moved = (theorem["objective"][..., -1] / theorem["objective"][..., 0]).min().item()
    last, drift = rank_one["distance"].isel(iteration=-1), plain["imbalance_change"].max().item()
    needed_1 = rank_one["steps_to_accuracy"].median("seed")
    slopes = np.diff(rank_one["escape_time"].mean("seed")) / np.diff(np.log(rank_one.d))
    expected = 0.5 / np.log1p(options.c_step)
    tail = rank_one["distance"].where(rank_one["distance"] > 1e-13)
    rate = (tail.shift(iteration=-1) / tail).isel(iteration=slice(150, None)).median().item()
    spoken, holding = rank_one["theorem_speaks"], rank_one["theorem_holds"]
    range_1 = f"{needed_1.values[0]:.0f} to {needed_1.values[-1]:.0f}"
    rows = [
        (
            "(a) (4.1) converges to a global minimum",
            f"‖UVᵀ − M*‖/‖M*‖ ≤ {error.max().item():.1e}",
            bool(error.max() <= ACCURATE),
        ),
        (
            "(a) at a rate competitive with (4.3)",
            f"steps to 10⁻⁶, (4.1) over (4.3): {pace:.2f}",
            pace < 1.25,
        ),
        (
            "(b) ‖U‖/‖V‖ remains constant on (4.1)",
            f"it changes by {change.median().item():.1f} % in the median seed, "
            f"{change.max().item():.1f} % at most",
            change.median().item() < 10,
        ),
        (
            "the reason: UᵀU − VᵀV hardly changes",
            f"by {drift:.1e} at most, constant step",
            drift < options.epsilon,
        ),
    ]
    for schedule, certificate in certificates.items():
        rows.append(
            (
                f"Lemma 4.1 and its proof, {schedule} steps",
                f"{np.mean(certificate.holds):.0%} of seeds hold all "
                f"{len(certificate.claims)} inequalities; "
                f"its hypotheses: {np.mean(certificate.applies):.0%}",
                bool(certificate.holds.all()),
            )
        )
    rows += [
        (
            "Theorem 4.4: its steps reach ε (in the limit)",
            f"after {study.step.values[-1]} steps f is {moved:.4f} of its start",
            True if moved <= options.epsilon**2 else None,
        ),
        (
            f"Theorem 4.5: error ≤ 10⁻⁶, all {last.size} trials",
            f"{(last <= ACCURATE).mean().item():.1%}; median steps {range_1}",
            bool((last <= ACCURATE).all()),
        ),
        (
            "Lemma 4.5: T_1 = O(log d)",
            f"{', '.join(f'{slope:.2f}' for slope in slopes)} steps per e-fold; "
            f"½/ln(1 + c_step) = {expected:.2f}",
            bool(np.all(np.abs(slopes / expected - 1) < 0.5)),
        ),
        (
            "Theorem 4.5: a linear rate",
            f"{rate:.4f} per step in the median; 1 − c_step = {1 - options.c_step:.4f}",
            abs(rate - 1 + options.c_step) < 0.05 * options.c_step,
        ),
        (
            "Lemmas 4.5 and 4.6, where the start is theirs",
            f"{spoken.mean().item():.0%} of trials; {holding.where(spoken).mean().item():.1%} hold",
            bool(holding.values[spoken.values].all()),
        ),
    ]
    return rows


def show(study, rank_one, rows, console):
    table = rich.table.Table(title="Figure 4.1 at the last step: medians over seeds, and ranges")
    for column in ("objective", "schedule", "f(T)/f(0)", "steps to 10⁻⁶", "‖U‖/‖V‖"):
        table.add_column(column, justify="right")
    for column in ("max ‖UᵀU − VᵀV‖", "its largest change"):
        table.add_column(column, justify="right")
    needed = steps_to_accuracy(study)
    for problem in study.problem.values:
        for schedule in study.schedule.values:
            part = study.sel(problem=problem, schedule=schedule)
            ratio = part["u_norm"] / part["v_norm"]
            steps = needed.sel(problem=problem, schedule=schedule)
            fallen = part["objective"].isel(step=-1) / part["objective"].isel(step=0)
            table.add_row(
                problem,
                schedule,
                f"{fallen.median().item():.1e}",
                f"{steps.median().item():.0f}" if steps.notnull().all() else "not reached",
                f"{ratio.min().item():.3f} to {ratio.max().item():.3f}",
                f"{part['imbalance_norm'].max('step').median().item():.1e}",
                f"{part['imbalance_change'].max('step').median().item():.1e}",
            )
    console.print(table)
    table = rich.table.Table(title="Rank one: 5, 50 and 95 % of trials")
    for column in ("d", "T_1", "T_2", "T_3", "steps to 10⁻⁶"):
        table.add_column(column, justify="right")
    names = ("escape_time", "complement_time", "signal_time", "steps_to_accuracy")
    for d in rank_one.d.values:
        percentiles = (
            rank_one[name].sel(d=d).quantile([0.05, 0.5, 0.95]).values.round() for name in names
        )
        table.add_row(str(d), *(" / ".join(f"{x:.0f}" for x in three) for three in percentiles))
    console.print(table)
    table = rich.table.Table(title="Claims")
    for column in ("Du (2019)", "measured", ""):
        table.add_column(column)
    for claim, measured, holds in rows:
        verdict = {True: "holds", False: "FAILS", None: "out of reach"}[holds]
        table.add_row(claim, measured, verdict)
    console.print(table)


def merge(study, rank_one):
    """One dataset of both studies: rank one's seeds are trials, every fifth iteration is kept."""
    rank_one = rank_one.assign_coords(iteration=np.arange(rank_one.sizes["iteration"]))
    rank_one = rank_one.isel(iteration=slice(None, None, 5))
    rank_one = rank_one.rename(seed="trial", diverged="trial_diverged")
    kept = ["distance", "escape_time", "complement_time", "signal_time", "steps_to_accuracy"]
    kept += ["theorem_holds", "theorem_speaks", "trial_diverged"]
    merged = xarray.merge([study, rank_one[kept]], combine_attrs="override")
    merged["diverged"] |= bool(rank_one["trial_diverged"].any())
    return merged


def draw(study, rank_one, options, path):
    figure = matplotlib.figure.Figure(figsize=(11, 7.6), layout="constrained")
    (loss, ratio), (imbalance, distance) = figure.subplots(2, 2)
    constant = study.sel(schedule="constant")
    studies.learning_curve(constant, "objective", hue="problem", ax=loss)
    loss.set(ylim=(1e-26, None), xlim=(0, 1.5 * steps_to_accuracy(constant).max().item()))
    loss.set_title("(a) ½ ‖UVᵀ − M*‖², constant step")
    constant = constant.assign(norm_ratio=constant["u_norm"] / constant["v_norm"])
    studies.learning_curve(constant, "norm_ratio", hue="problem", ax=ratio)
    ratio.set(yscale="linear", ylim=(0.5, 1.5), xlim=loss.get_xlim(), ylabel="‖U‖ / ‖V‖")
    ratio.set_title("(b) ratio of the norms, constant step")
    for ax in (loss, ratio):
        ax.lines[0].set_linewidth(5)  # curves that coincide show beneath each other
    runs = {
        f"(4.1), {name}": {"problem": "(4.1)", "schedule": name} for name in study.schedule.values
    }
    runs["(4.3), constant"] = {"problem": "(4.3)", "schedule": "constant"}
    chosen = [study["imbalance_norm"].sel(run).drop_vars(list(run)) for run in runs.values()]
    studies.learning_curve(
        xarray.concat(chosen, xarray.Variable("run", list(runs))).to_dataset(),
        "imbalance_norm",
        hue="run",
        reference={"ε": np.full(study.sizes["step"], options.epsilon)},
        ax=imbalance,
    )
    imbalance.set(ylabel="‖UᵀU − VᵀV‖", xscale="symlog", xlim=(0, None), ylim=(1e-6, 1))
    for line, width in zip(imbalance.lines, (6, 4, 2), strict=False):
        line.set_linewidth(width)
    imbalance.set_title("(c) imbalance")
    late = 20 * (1 - options.c_step) ** rank_one["iteration"]
    studies.learning_curve(
        rank_one,
        "distance",
        along="iteration",
        hue="d",
        reference={"∝ (1 − c_step)ᵗ": late},
        ax=distance,
    )
    distance.set(xlim=(0, 300), ylim=(1e-10, 10), ylabel="error")
    distance.set_title("(d) rank one: ‖uvᵀ − M*‖ / σ_1")
    figure.savefig(path, dpi=150)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    parser.add_argument("--shape", type=int, nargs=2, help="d_1 and d_2, in place of the scale's")
    parser.add_argument("--rank", type=int, help="r, in place of the scale's")
    parser.add_argument("--seeds", type=int, help="of Figure 4.1, in place of the scale's")
    parser.add_argument("--steps", type=int, help="of Figure 4.1, in place of the scale's")
    parser.add_argument("--learning-rate", type=float, default=0.8, help="η_0: %(default)s")
    parser.add_argument("--excess", type=float, default=0.1, help="the footnote's δ: %(default)s")
    parser.add_argument("--epsilon", type=float, default=0.1, help="ε: %(default)s")
    parser.add_argument("--std", type=float, help="of the start; by default what Lemma 4.1 admits")
    parser.add_argument("--trials", type=int, help="of rank one, in place of the scale's")
    parser.add_argument("--dimensions", type=int, nargs="+", help="d of rank one")
    parser.add_argument("--iterations", type=int, default=400, help="of rank one: %(default)s")
    parser.add_argument("--c-init", type=float, default=0.1, help="of Theorem 4.5: %(default)s")
    parser.add_argument("--c-step", type=float, default=0.1, help="of Theorem 4.5: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder for the files")
    parser.add_argument(
        "--resume", action="store_true", help="keep what is finished, and go on from there"
    )
    options = parser.parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    scale = {name: given.get(name, value) for name, value in SCALES[options.scale].items()}
    shape, rank, steps = scale["shape"], scale["rank"], scale["steps"]
    dimensions = options.dimensions or DIMENSIONS[options.scale]
    admitted = system.initial_variance(max(shape), rank, options.epsilon, 0.1).value ** 0.5
    std = options.std or admitted
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 140, soft_wrap=True)
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"du2019_factorization_{options.scale}"
    folders = [options.output / f"{name}_{part}" if options.resume else None for part in (1, 2)]

    experiment = build_factorization(shape, rank, steps, std, options)
    study = factorization_study(experiment, scale["seeds"], options.excess, folders[0])
    rank_one = rank_one_study(options, scale["trials"], dimensions, folders[1])
    console.print(
        f"(d_1, d_2) = {tuple(shape)}, r = {rank}, ‖M*‖_F = 1, η_0 = {options.learning_rate}, δ = "
        f"{options.excess}, ε = {options.epsilon}, start N(0, {std:.2g}²), {steps} steps, "
        f"{scale['seeds']} seeds; rank one: c_init = {options.c_init}, c_step = {options.c_step}, "
        f"{scale['trials']} trials; on {jax.local_device_count()} {jax.default_backend()} devices."
    )
    rows = claims(study, rank_one, lemma(study, rank, options.epsilon), options)
    show(study, rank_one, rows, console)
    draw(study, rank_one, options, options.output / f"{name}.png")
    study = merge(study, rank_one)
    settings = vars(options) | scale | {"std": std, "dimensions": dimensions}
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
