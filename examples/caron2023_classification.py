"""Node scaling on classification: Caron et al. (2023), Figures 4, 5, 10 to 12, 17 to 19.

f(x) = Σ_j √λ_j a_j σ(w_j·x/√d) with m = 2000 nodes and an output per class, with scalings
λ_j = γ/m + (1 − γ) j^(−1/α)/Σ_k k^(−1/α): γ = 1 is that of the neural tangent kernel. Two
experiments, on scikit-learn's digits unless --data names files:

--loss mse, as for MNIST: W alone learns, by full-batch descent of step 1 on the mean squared error
against one-hot labels. Θ is the kernel of the first output on 50 points. For the transfer, an
external network of 128 ReLU neurons learns from the k most important nodes' outputs √λ_j σ(Z_j).
--loss cross-entropy, as for CIFAR-10 and -100 by the 512 features of a frozen ResNet-18 (an .npz
with x_train, y_train, x_test, y_test): minibatches of 64, step 5, both layers learn (in the
released code W alone: --output-layer fixed). --sweep gamma varies γ at α = 0.5, as Figure 12.

Nodes are pruned without retraining, by importance: λ_j‖w_j‖² as printed, or λ_j alone as in the
released code, arbitrary at γ = 1; both are shown. The paper claims that 95 % of the nodes can go at
γ = 0 and not at γ = 1, and that few features are worth more at smaller γ. Part of the latter is
scale: at γ = 1 a node's output has the factor √(1/m), and equal steps learn less from smaller
inputs; the table has the root mean square of what is transferred. Orders between other settings
were seen on MNIST or CIFAR: they are printed as reported, with what digits say.

--scale paper takes the paper's 200 000 steps, or 100 epochs, on files: on two cores some hours for
50 000 samples of 512 features, and weeks for 5000 images, which want an accelerator. On digits it
takes 1500 steps of 5 instead: up to 6 = n / λ_max(XXᵀ/d) steps are stable there at any λ, and step
times number counts. That is a 27th of the paper's path; γ = 0 is then far from trained. Of files
with a test set, --samples images learn, as many are held out, and the test set is halved.
"""

import argparse
import functools
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

from ntkflow import data, descend, features, kernel_observer, studies
from ntkflow.systems import node_scaling as system
from ntkflow.training.losses import cross_entropy_loss, squared_loss

# λ_min of the Gram matrix needs float64; networks and data stay float32.
jax.config.update("jax_enable_x64", True)

SCALES = {
    "small": {"width": 400, "seeds": 3, "steps": 1000, "external_steps": 500},
    "paper": {"width": 2000, "seeds": 5, "steps": 200_000, "external_steps": 10_000},
}
STAND_IN = {"steps": 1500, "external_steps": 2000}  # of digits at paper scale
EPOCHS = {"small": 30, "paper": 100}  # with cross-entropy
KEPT = {"small": [10, 20, 50, 100], "paper": list(range(10, 101, 10))}  # a program for each
SETTINGS = {  # γ, α
    "γ=1": (1.0, 0.5),
    "γ=.5 α=.7": (0.5, 0.7),
    "γ=.5 α=.5": (0.5, 0.5),
    "γ=.2 α=.5": (0.2, 0.5),
    "γ=0 α=.4": (0.0, 0.4),
}
SWEEP = {f"γ={gamma:g}": (gamma, 0.5) for gamma in (1.0, 0.7, 0.5, 0.2, 0.1, 0.0)}
IMPORTANCE = {"λ‖w‖²": "-", "λ": "--"}  # line styles
REMOVED = np.arange(21) / 20  # shares of the nodes
LEARNING_RATE = {"mse": 1.0, "cross-entropy": 5.0, "digits": 5.0}
CHOSEN = ("loss", "activation", "output_layer", "variance", "learning_rate", "steps", "kept")
CHOSEN += ("external_learning_rate", "external_steps")  # what an experiment is built from
BATCH_SIZE, KERNEL_POINTS, RECORDS = 64, 50, 25
PRUNED_SAMPLES = 5000  # of the training set, on which pruned networks are evaluated
PANELS = {
    "train_risk": "training risk",
    "test_risk": "test risk",
    "test_accuracy": "test accuracy",
    "displacement": "‖w − w(0)‖, farthest node",
    "kernel_change": "‖Θ − Θ(0)‖₂",
    "kernel_smallest_eigenvalue": "λ_min(Θ)",
    "pruned_train_accuracy": "pruned, training accuracy",
    "pruned_test_accuracy": "pruned, test accuracy",
    "pruned_test_risk": "pruned, test risk",
    "transfer_train_accuracy": "transfer, training accuracy",
    "transfer_test_accuracy": "transfer, test accuracy",
}
# Read off the curves that the authors released: ReLU, W alone trained, weights N(0, 2I), pruning
# by λ alone, an external network of two hidden layers.
RELEASED_COLUMNS = ("test accuracy", PANELS["displacement"], "−5%", "−50%", "−75%", "−95%", "k=10")
RELEASED = {
    "mnist": {
        "γ=1": (0.889, 3.11, 0.877, 0.603, 0.391, 0.243, 0.272),
        "γ=.5 α=.7": (0.884, 10.1, 0.881, 0.712, 0.582, 0.417, 0.477),
        "γ=.2 α=.5": (0.860, 15.0, 0.854, 0.765, 0.587, 0.455, 0.607),
        "γ=0 α=.4": (0.760, 22.3, 0.760, 0.760, 0.759, 0.754, 0.849),
    },
    "cifar10": {
        "γ=1": (0.862, 9.17, 0.855, 0.775, 0.611, 0.360),
        "γ=.5 α=.7": (0.859, 51.8, 0.856, 0.785, 0.686, 0.521),
        "γ=.2 α=.5": (0.851, 66.2, 0.848, 0.775, 0.651, 0.490),
        "γ=0 α=.4": (0.829, 117.7, 0.828, 0.828, 0.828, 0.827),
    },
}


def accuracy(outputs, y):
    return jnp.mean(outputs.argmax(axis=1) == y.argmax(axis=1), dtype=outputs.dtype)


def build_experiment(loss, activation, output_layer, variance, learning_rate, steps, **transfer):
    activation, entropy = getattr(jax.nn, activation), loss == "cross-entropy"
    mean_squares = functools.partial(squared_loss, reduction="mean")
    build_loss = cross_entropy_loss if entropy else mean_squares

    def hidden(variables, x):
        return system.hidden(variables, x, activation)

    def kernel(variables, x):
        first = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (leaf[:, 0] if path[-1].key == "output" else leaf).astype(float),
            variables,
        )
        return system.gram(first, x.astype(float), activation=activation)

    def experiment(key, parts, scales, setting):
        train, test, *held_out = parts
        scales = scales[setting.astype(int)]
        outputs = train.y.shape[1]
        init_key, batch_key, external_key = jax.random.split(key, 3)
        module = system.NodeScaledNetwork(
            scales, outputs, activation, output_layer, variance, param_dtype="float32"
        )

        def evaluate(variables, samples):
            outputs = module.apply(variables, samples[0])
            risk = build_loss(lambda variables, x: outputs)(variables, samples)
            return {"accuracy": accuracy(outputs, samples[1]), "risk": risk}

        observe = {
            "test": lambda snapshot: evaluate(snapshot.params, test),
            "displacement": features.displacement(lambda path: "kernel" in path),
        }
        theta = kernel_observer(kernel, ("change", "smallest_eigenvalue"), samples=KERNEL_POINTS)
        observe |= {} if entropy else {"kernel": theta}
        run = descend(
            build_loss(module.apply),
            optax.sgd(learning_rate),
            steps,
            every=max(steps // RECORDS, 1),
            observe=observe,
            batch_size=BATCH_SIZE if entropy else None,
        )
        trajectory = run(module.init(init_key, train.x), train, batch_key if entropy else None)
        variables, history = trajectory.params, dict(trajectory.history)
        history["train_risk"] = history.pop("loss")
        history["displacement"] = features.largest_displacement(history["displacement"])

        importance = functools.partial(
            features.importance, variables, lambda path: "kernel" in path, scales=scales
        )
        orders = jnp.stack([importance(), importance(released=True)])  # as IMPORTANCE has them
        removed = np.round(REMOVED * len(scales)).astype(int)
        curve = features.pruning_curve(evaluate, lambda path: "output" in path, removed)

        def pruned(samples):
            return jax.lax.map(lambda order: curve(variables, order, samples), orders)

        few = jax.tree.map(lambda array: array[:PRUNED_SAMPLES], train)
        results = {"pruned_train": pruned(few), "pruned_test": pruned(test)}
        if not entropy:
            external = features.ExternalNetwork((128,), outputs, "float32")
            optimizer = optax.sgd(transfer["external_learning_rate"])
            learns = (external, build_loss, optimizer, transfer["external_steps"])
            moved = [
                features.transfer(hidden, k, *learns)(external_key, variables, orders[0], *held_out)
                for k in transfer["kept"]
            ]
            for part, (_, y) in zip(("train", "test"), held_out, strict=True):
                correct = [accuracy(getattr(one, f"{part}_outputs"), y) for one in moved]
                results[f"transfer_{part}_accuracy"] = jnp.stack(correct)
            few = features.top_features(hidden, transfer["kept"][0])
            inputs = few(variables, orders[0], held_out[0].x)
            results["transferred_rms"] = jnp.sqrt(jnp.mean(jnp.square(inputs)))
        return trajectory._replace(history=history), results

    return experiment


def read(source, samples, loss, console):
    """Training and test set, and the two sets that are held out for the transfer."""
    load = functools.partial(data.load, source, labels="one_hot", dtype="float32")
    try:
        test = data.split(1, load(split="test"), (0.5, 0.5))
    except ValueError as error:
        if source != "digits":
            console.print(f"No test set: {error} The rows are split here.")
        return data.split(0, load(split="train"), (0.4, 0.2, 0.2, 0.2))
    if loss == "cross-entropy":  # no transfer: all images serve
        return load(split="train"), load(split="test")
    train, held_out = data.split(0, load(split="train", limit=2 * samples), (0.5, 0.5))
    return train, test[0], held_out, test[1]


def last(study, name):
    """A result at the end of the run; of pruning, 95 % removed; of transfer, fewest features."""
    one = study[name]
    if name.startswith("pruned"):
        return one.sel(importance="λ‖w‖²", removed=0.95)
    return one.isel(kept=0) if name.startswith("transfer") else one.isel(step=-1)


def claims(study, source):
    """Verdict and claim, with means over seeds."""
    told = []

    def tell(claim, values, holds, on_files_only=False):
        verdict = "holds" if holds else "FAILS"
        if on_files_only and source == "digits":
            verdict = f"reported of MNIST or CIFAR, {'and so' if holds else 'and not'} here"
        told.append(f"{verdict}: {claim}; {', '.join(f'{value:.3g}' for value in values)}")

    def mean(quantity):
        return last(study, quantity).mean("seed").values

    moved, before, pruned = map(mean, ("displacement", "test_accuracy", "pruned_test_accuracy"))
    tell("the farthest node moves least at γ = 1", moved, moved[0] < moved[1:].min())
    tell("it moves the farther, the smaller γ and α", moved, (np.diff(moved) > 0).all(), True)
    if "kernel_change" in study:
        change, smallest = mean("kernel_change"), mean("kernel_smallest_eigenvalue")
        tell("Θ changes the more, the smaller γ and α", change, (np.diff(change) > 0).all())
        tell("λ_min(Θ) is larger for larger γ", smallest, (np.diff(smallest) < 0).all())
    guessing = 1 / study.attrs["classes"]
    if before.min() > 2 * guessing:  # else there is nothing to lose yet
        left = (pruned - guessing) / (before - guessing)
        without = "of what it had over guessing, without 95 % of the nodes,"
        tell(f"{without} γ = 1 keeps less than half", left, left[0] < 0.5)
        tell(f"{without} γ = 0 keeps the largest share", left, left[-1] > left[:-1].max())
        tell(f"{without} γ = 0 keeps 95 %", left, left[-1] > 0.95, True)
        tell("the smaller γ and α, the more is left", left, (np.diff(left) > 0).all(), True)
    if "kept" in study:
        worth, few = mean("transfer_test_accuracy"), f"{study.kept.values[0]} transferred features"
        tell(f"{few} are worth least at γ = 1", worth, worth[0] < worth[1:].min())
        tell(f"{few} are worth most at γ = 0", worth, worth[-1] > worth[:-1].max(), True)
    return told


def show(study, name, console):
    end, pruned = study.isel(step=-1), study["pruned_test_accuracy"]
    drawn = [key for key in PANELS if key in study]
    trained = {PANELS[key]: end[key] for key in drawn if "step" in study[key].dims}
    shares = {"all": 0.0, "−5%": 0.05, "−50%": 0.5, "−75%": 0.75, "−95%": 0.95}
    left = {name: pruned.sel(importance="λ‖w‖²", removed=share) for name, share in shares.items()}
    left["−95% by λ"] = pruned.sel(importance="λ", removed=0.95)
    if "kept" in study:
        for kept in study.kept.values[[0, -1]]:
            left[f"k={kept}"] = study["transfer_test_accuracy"].sel(kept=kept)
        left[f"rms, k={study.kept.values[0]}"] = study["transferred_rms"]
    what = "Test accuracy without shares of the nodes, and by transfer of k features"
    for title, found in ((f"After {study.step.values[-1]} steps", trained), (what, left)):
        table = rich.table.Table(title=f"{name}. {title}: mean ± standard deviation over seeds")
        for column in ("setting", *found):
            table.add_column(column, justify="right")
        for setting in study.setting.values:
            cells = (column.sel(setting=setting) for column in found.values())
            texts = (f"{cell.mean().item():.3g} ±{cell.std().item():.1g}" for cell in cells)
            table.add_row(setting, *texts)
            if setting in RELEASED.get(name, {}):
                released = dict(zip(RELEASED_COLUMNS, RELEASED[name][setting], strict=False))
                values = (f"{released[key]:.3g}" if key in released else "" for key in found)
                table.add_row("released, by λ", *values, style="dim")
        console.print(table)
    for line in claims(study, name):
        console.print(line)


def draw(study, name, path):
    drawn = [quantity for quantity in PANELS if quantity in study]
    rows = -(-len(drawn) // 4)
    figure = matplotlib.figure.Figure(figsize=(15, 3.3 * rows), layout="constrained")
    axes = figure.subplots(rows, 4).ravel()
    for ax, quantity in zip(axes, drawn, strict=False):
        whole = study[quantity]
        along = whole.dims[-1]
        orders = IMPORTANCE if "importance" in whole.dims else {None: "-"}
        for number, setting in enumerate(study.setting.values):
            for importance, style in orders.items():
                chosen = {"importance": importance} if importance else {}
                curve = whole.sel(setting=setting, **chosen)
                mean, std = curve.mean("seed").values, curve.std("seed").values
                label, color = (setting if style == "-" else None), f"C{number}"
                ax.plot(curve[along], mean, style, color=color, label=label)
                # On a logarithmic axis mean − std may have no place: not below any seed.
                low = np.maximum(mean - std, curve.min("seed").values)
                ax.fill_between(curve[along], low, mean + std, color=color, alpha=0.15, lw=0)
        least, most = (f(whole.mean("seed").values) for f in (np.min, np.max))
        if least > 0 and along == "step" and ("risk" in quantity or "smallest" in quantity):
            ax.set_yscale("log")
            if most < 10 * least:  # no powers of ten that could name the ticks
                ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 3, 5)))
                ax.yaxis.set_major_formatter("{x:.2g}")
                ax.yaxis.set_minor_formatter("")
        label = {"kept": "features kept", "removed": "share removed"}.get(along, along)
        ax.set(title=PANELS[quantity], xlabel=label)
    axes[-1].set_axis_off()  # of 7 or 11 panels
    axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="center", frameon=False)
    figure.suptitle(f"{name}; pruned by λ‖w‖² (solid) and by λ alone (dashed)")
    figure.savefig(path, dpi=110)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--scale", choices=SCALES, default="small", help="how much: %(default)s")
    known = "as ntkflow.data.load reads it; for mnist= and cifar10= with the authors' values"
    add("--data", default="digits", metavar="[NAME=]PATH", help=known)
    add("--loss", choices=("mse", "cross-entropy"), default="mse", help="%(default)s")
    add("--activation", choices=("relu", "swish"), default="relu", help="%(default)s")
    add("--sweep", choices=("gamma",), help="of Figure 12, in place of the (γ, α)")
    add("--output-layer", choices=("fixed", "trained"), help="trained with cross-entropy")
    add("--samples", type=int, default=5000, help="of files, for mse: %(default)s")
    add("--learning-rate", type=float, help="1; 5 with cross-entropy, and on digits")
    add("--variance", type=float, default=1.0, help="of the first weights (2 in the code)")
    for name in SCALES["small"]:
        add(f"--{name.replace('_', '-')}", type=int, help="in place of the scale's")
    add("--external-learning-rate", type=float, default=1.0, help="of transfer: %(default)s")
    add("--kept", type=int, nargs="+", help="numbers of features transferred, for mse")
    add("--output", type=Path, default=Path("results"), help="folder for the files")
    add("--resume", action="store_true", help="keep finished settings, and go on from there")
    options = parser.parse_args(arguments)
    begin = time.perf_counter()
    # A table in a file or a pipe has no window to fit.
    console = rich.console.Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True)
    source, named, path = options.data.partition("=")
    source, path = (source, path) if named else (Path(source).stem, source)
    entropy = options.loss == "cross-entropy"
    if entropy and (options.kept or options.external_steps):
        parser.error("--kept and --external-steps are of transfer, which --loss mse alone has")
    scale = dict(SCALES[options.scale])
    if path == "digits" and options.scale == "paper":
        scale |= STAND_IN
    parts = read(path, options.samples, options.loss, console)
    train, classes = parts[0], parts[0].y.shape[1]
    if entropy:
        scale["steps"] = EPOCHS[options.scale] * (len(train.x) // BATCH_SIZE)
    scale |= {name: vars(options)[name] for name in scale if vars(options)[name] is not None}
    vars(options).update(scale)
    kept = [] if entropy else sorted(set(options.kept or KEPT[options.scale]))
    if kept and kept[-1] > options.width:
        parser.error(f"--kept {kept[-1]} of --width {options.width} nodes: keep at most as many")
    options.kept = kept
    options.output_layer = options.output_layer or ("trained" if entropy else "fixed")
    if options.learning_rate is None:
        options.learning_rate = LEARNING_RATE["digits" if path == "digits" else options.loss]
    chosen = {name: vars(options)[name] for name in CHOSEN}
    settings = SWEEP if options.sweep else SETTINGS
    scales = [system.node_scales(system.zipf(options.width, a), c) for c, a in settings.values()]
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"caron2023_classification_{source}_{options.loss}_{options.activation}"
    name += f"_{options.output_layer}{'_sweep' if options.sweep else ''}_{options.scale}"
    parts_told = ("train_accuracy", "train_risk", "test_accuracy", "test_risk")
    dims = {f"pruned_{part}": ("importance", "removed") for part in parts_told}
    dims |= {} if entropy else {f"transfer_{part}": ("kept",) for part in parts_told[::2]}
    console.print(
        f"{source}: n = {len(train.x)} of {train.x.shape[1]} features, {classes} classes; "
        f"{options.activation}, m = {options.width}, output layer {options.output_layer}, "
        f"{options.seeds} seeds, {options.steps} steps of {options.learning_rate} on the "
        f"{options.loss} loss{f', batches of {BATCH_SIZE}' if entropy else ''}; on "
        f"{jax.local_device_count()} {jax.default_backend()} devices. Settings 0, 1, …: "
        f"{', '.join(settings)}."
    )
    study = studies.run(
        build_experiment(**chosen),
        seeds=options.seeds,
        # A setting's number is traced: one program serves them all.
        grid={"setting": [float(i) for i in range(len(settings))]},
        args=(parts, jnp.stack(scales).astype("float32")),
        dims=dims,
        folder=options.output / name if options.resume else None,
        batch=1 if jax.default_backend() == "cpu" else None,
    ).assign_coords(setting=list(settings), importance=list(IMPORTANCE), removed=REMOVED)
    if not entropy:
        study = study.assign_coords(kept=kept)
    study.attrs |= {"classes": classes, "settings": json.dumps(chosen | {"width": options.width})}
    with np.errstate(over="ignore", invalid="ignore"):  # of runs that diverged
        show(study, source, console)
        draw(study, source, options.output / f"{name}.png")
    studies.save(study, options.output / f"{name}.nc")
    console.print(
        f"Figure {options.output / name}.png, dataset {options.output / name}.nc. "
        f"{time.perf_counter() - begin:.0f} s in all."
    )
    return study


if __name__ == "__main__":
    main()
