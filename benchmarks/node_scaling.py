"""The simulated study of Caron et al. (2023), Figure 2, at 50 of its 50 000 steps.

Networks of 2000 nodes of unequal scales, full-batch gradient descent on 100 samples of 50 features
in float32: four settings (γ, α) × five seeds, ReLU and swish, beside a plain PyTorch loop and the
speed of one large matrix product; and what it costs to record the kernel every 1000 steps. Meant
for two cores: PyTorch gets two threads, JAX two CPU devices, or one with two threads.
"""

import functools
import importlib.util
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing

from ntkflow import data, descend, features, kernel_observer, over_devices, over_seeds, squared_loss
from ntkflow.systems import node_scaling as system

SAMPLES, FEATURES, NODES, SEEDS, STEPS, STEP_SIZE = 100, 50, 2000, 5, 50, 1.0
SETTINGS = ((1.0, 0.5), (0.5, 0.7), (0.5, 0.5), (0.0, 0.4))  # (γ, α)
ACTIVATIONS = {"relu": jax.nn.relu, "swish": jax.nn.swish}
RECORD_STEPS, RECORD_EVERY, RECORD_SEEDS, USUAL = 1000, 100, 2, 1000
TOLERANCE = 1e-3  # of the last losses in float32, relative

# Products of a step: X W and Xᵀ G of 2ndm operations, σ(Z) times the signs of 2nm.
STEP = 4 * SAMPLES * FEATURES * NODES + 2 * SAMPLES * NODES
LOSS = 2 * SAMPLES * FEATURES * NODES + 2 * SAMPLES * NODES


def main() -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    # With eigenvalues in float64, as in the example; networks and data are float32.
    common = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "OPENBLAS_NUM_THREADS": "1"}
    workers = {
        "one": timing.Worker(JAX_NUM_CPU_DEVICES="1", **common),
        "two": timing.Worker(JAX_NUM_CPU_DEVICES="2", **common),
    }
    if importlib.util.find_spec("torch"):
        workers["torch"] = timing.Worker()
    tables = [study(workers, options.rounds), records(workers["two"], options.rounds)]
    for worker in workers.values():
        worker.close()
    timing.report(__file__, tables, load, options.markdown)


# The study.


def study(workers, rounds):
    contenders = {
        "ntkflow, 2 devices": ("two", "lax.map"),
        "ntkflow, 1 device": ("one", "lax.map"),
        "ntkflow, 1 device, vmap": ("one", "vmap"),
        "ntkflow, 2 devices, 4 programs": ("two", "4 programs"),
        "PyTorch, 1 thread": ("torch", 1),
        "PyTorch, 2 threads": ("torch", 2),
    }
    contenders = {name: place for name, place in contenders.items() if place[0] in workers}
    clocks = {
        "large": functools.partial(workers["one"], clock_large_product),
        "step": functools.partial(workers["two"], clock_step_products),
    }
    rates = {name: 1 / time.run for name, time in timing.race(clocks, 3 * rounds).items()}
    runs = len(SETTINGS) * SEEDS
    needed = runs * (STEPS * STEP + LOSS)
    rows, apart = [], 0.0
    for activation in ACTIVATIONS:
        drawn = workers["one"](draw, activation)

        def ask(function, place, option, activation=activation, drawn=drawn):
            return workers[place](function, place, activation, option, drawn)

        clocks = {name: functools.partial(ask, clock, *place) for name, place in contenders.items()}
        times = timing.race(clocks, rounds)
        losses = {name: ask(losses_of, *place) for name, place in contenders.items()}
        reference = losses["ntkflow, 1 device"]
        apart = max(apart, *(np.max(np.abs(own / reference - 1)) for own in losses.values()))
        base = times["ntkflow, 2 devices"].run
        rows += [
            [
                f"{activation}: {name}",
                f"{time.run:.2f}",
                timing.ratio(time.run, base),
                f"{len(SETTINGS) * STEPS / time.run:.0f}",
                f"{1e6 * time.run / (runs * STEPS):.0f}",
                f"{needed / time.run / 1e9:.0f}",
                f"{needed / time.run / rates['large']:.0%}",
                "-" if "PyTorch" in name else f"{time.start:.1f}",
            ]
            for name, time in times.items()
        ]
    if not apart < TOLERANCE:
        raise SystemExit(f"The contenders' losses differ by {apart:.1e} of their value.")
    remark = (
        f"{len(SETTINGS)} settings × {SEEDS} seeds × {STEPS} steps, initialization included; "
        "seeds one after another on each device, five filling two devices as six do; λ is an "
        "argument, so that one program serves all settings (4 programs: it is a constant). "
        "steps/s: of each seed, in one setting after another, all seeds sharing the machine; "
        "µs/step: per run. Start is tracing and compilation. Gflop/s are those of the matrix "
        f"products, {STEP / 1e6:.1f}·10⁶ operations a step; the limit is the speed of one large "
        f"product in float32, {rates['large'] / 1e9:.0f} Gflop/s. The two products of a step "
        f"alone, Xᵀ(X W) in a loop on both devices: {rates['step'] / 1e9:.0f} Gflop/s. PyTorch "
        "runs one after another. From the same data and weights all losses agree to "
        f"{apart:.0e} of their value."
    )
    if "torch" not in workers:
        remark += " PyTorch is left out: torch cannot be imported (pip install torch==2.13.0)."
    columns = ["simulated study", "run, s", "ratio", "steps/s", "µs/step", "Gflop/s", "of limit"]
    return timing.Table("The simulated study", [*columns, "start, s"], rows, remark)


def clock(place, activation, option, drawn):
    if place != "torch":
        return timing.seconds(contender(activation, option))
    return timing.seconds(functools.partial(torch_losses, activation, option, *drawn))


def losses_of(place, activation, option, drawn):
    """The losses after the last step, shape (settings, seeds)."""
    if place == "torch":
        return torch_losses(activation, option, *drawn)
    return np.asarray(contender(activation, option)())


def scales():
    """λ of all settings, shape (settings, m)."""
    rows = [system.node_scales(system.zipf(NODES, alpha), gamma) for gamma, alpha in SETTINGS]
    return jnp.stack(rows).astype(jnp.float32)


def keys(seeds):
    return jnp.stack([jax.random.key(seed) for seed in range(seeds)])


def prepare(key, scale, activation):
    """The module, its variables and the data of one seed."""
    x_key, y_key, key = jax.random.split(key, 3)
    x = data.sphere(x_key, SAMPLES, FEATURES, jnp.float32)
    y = data.sine_labels(y_key, x, 0.1)
    module = system.NodeScaledNetwork(
        scale, activation=ACTIVATIONS[activation], variance=2.0, param_dtype=x.dtype
    )
    return module, module.init(key, x), (x, y)


def experiment(key, scale, activation):
    module, variables, pair = prepare(key, scale, activation)
    run = descend(squared_loss(module.apply, "mean"), optax.sgd(STEP_SIZE), STEPS, every=STEPS)
    return run(variables, pair).history["loss"][-1]


@functools.cache
def contender(activation, option):
    """A function of nothing that trains all settings and seeds."""
    rows, chosen = scales(), keys(SEEDS)
    if option == "vmap":
        train = jax.vmap(functools.partial(experiment, activation=activation), (0, None))
        every_setting = jax.jit(jax.vmap(train, (None, 0)))
        return lambda: every_setting(chosen, rows)

    def build(own):
        mapped = over_seeds(own, batch=1)
        return over_devices(mapped) if jax.local_device_count() > 1 else jax.jit(mapped)

    if option == "4 programs":
        programs = [build(lambda key, r=row: experiment(key, r, activation)) for row in rows]
        return lambda: jnp.stack([program(chosen) for program in programs])
    program = build(functools.partial(experiment, activation=activation))
    return lambda: jnp.stack([program(chosen, row) for row in rows])


def draw(activation):
    """All scales, and data and weights of all seeds, as NumPy arrays: λ, x, y, W and a."""

    def one(key):
        _, variables, (x, y) = prepare(key, scales()[0], activation)
        kernel, output, _ = system.weights(variables)
        return x, y, kernel, output

    return jax.tree.map(np.asarray, (scales(), *jax.jit(jax.vmap(one))(keys(SEEDS))))


def torch_losses(activation, threads, all_scales, xs, ys, kernels, outputs):
    """What a user of PyTorch writes: one setting, one seed after another."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    sigma = {"relu": torch.relu, "swish": torch.nn.functional.silu}[activation]

    class NodeScaled(torch.nn.Module):
        def __init__(self, scales, kernel, output):
            super().__init__()
            self.hidden = torch.nn.Linear(FEATURES, NODES, bias=False)
            with torch.no_grad():
                self.hidden.weight.copy_(torch.from_numpy(kernel.T.copy()))
            self.register_buffer("signs", torch.from_numpy(np.sqrt(scales) * output))

        def forward(self, x):
            return sigma(self.hidden(x / math.sqrt(FEATURES))) @ self.signs

    losses = np.empty((len(all_scales), len(xs)))
    for i, scale in enumerate(all_scales):
        for seed, drawn in enumerate(zip(xs, ys, kernels, outputs, strict=True)):
            x, y = (torch.from_numpy(array.copy()) for array in drawn[:2])
            model = NodeScaled(scale, *drawn[2:])
            optimizer = torch.optim.SGD(model.parameters(), lr=STEP_SIZE)
            for _ in range(STEPS):
                loss = (model(x) - y).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                losses[i, seed] = (model(x) - y).square().mean().item()
    return losses


# Matrix products alone: what a machine can do, and what it can do in pieces of this size.


def clock_large_product():
    """Seconds per floating-point operation."""
    call, size = large_product()
    return min(timing.seconds(call) for _ in range(3)) / (2 * size**3)


@functools.cache
def large_product(size=2048):
    a, multiply = jnp.ones((size, size), jnp.float32), jax.jit(jnp.matmul)
    return (lambda: multiply(a, a)), size


def clock_step_products():
    """Seconds per floating-point operation, on all devices together."""
    call, needed = step_products()
    return min(timing.seconds(call) for _ in range(3)) / needed


@functools.cache
def step_products(repeats=100):
    """X W, and Xᵀ times it, again and again: each waits for the one before."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(SAMPLES, FEATURES)), jnp.float32)
    x = x / jnp.linalg.norm(x, 2)
    devices = jax.local_device_count()
    start = jnp.ones((devices, FEATURES, NODES), jnp.float32)
    loop = jax.pmap(lambda w: jax.lax.fori_loop(0, repeats, lambda _, w: x.T @ (x @ w), w))
    return (lambda: loop(start)), devices * repeats * 4 * SAMPLES * FEATURES * NODES


# Records.


def records(worker, rounds):
    rows = []
    count = RECORD_STEPS // RECORD_EVERY + 1
    runs = RECORD_SEEDS / 2  # one after another on each of two devices
    for activation in ACTIVATIONS:
        clocks = {
            kind: functools.partial(worker, clock_recorded, activation, kind)
            for kind in ("the loss alone", "the kernel", "all panels")
        }
        times = timing.race(clocks, rounds)
        plain = times["the loss alone"].run
        for kind, time in times.items():
            record = (time.run - plain) / runs / count
            rows.append(
                [
                    f"{activation}: {kind}",
                    f"{time.run:.3f}",
                    f"{1e3 * record:.2f}",
                    f"{record * runs * RECORD_STEPS / plain / USUAL:.1%}",
                    f"{time.start:.1f}",
                ]
            )
    remark = (
        f"{RECORD_SEEDS} seeds on two devices, {RECORD_STEPS} steps, {count} records, from which "
        f"the share of a run that records every {USUAL} steps is counted. The kernel: its "
        "smallest eigenvalue and its change in the spectral norm, two decompositions in float64; "
        "all panels: the displacement of each node and the test risk as well."
    )
    columns = ["recorded", "run, s", "a record, ms", f"of {USUAL} steps", "start, s"]
    return timing.Table("What records cost", columns, rows, remark)


def clock_recorded(activation, kind):
    return timing.seconds(recorder(activation, kind))


@functools.cache
def recorder(activation, kind):
    """A function of nothing that trains a setting and returns its history."""
    sigma = ACTIVATIONS[activation]

    def train(key, scale):
        module, variables, pair = prepare(key, scale, activation)
        loss = squared_loss(module.apply, "mean")
        theta = kernel_observer(
            lambda variables, x: system.gram(variables, x, activation=sigma),
            ("smallest_eigenvalue", "change"),
        )
        observe = {} if kind == "the loss alone" else {"ntk": theta}
        if kind == "all panels":
            x_test = data.sphere(jax.random.fold_in(key, 1), SAMPLES, FEATURES, jnp.float32)
            observe["test_risk"] = lambda now: loss(now.params, (x_test, pair[1]))
            observe["displacement"] = features.displacement(lambda path: "kernel" in path)
        run = descend(loss, optax.sgd(STEP_SIZE), RECORD_STEPS, every=RECORD_EVERY, observe=observe)
        return run(variables, pair).history

    program = over_devices(over_seeds(train, batch=1))
    chosen, scale = keys(RECORD_SEEDS), scales()[2]
    return lambda: program(chosen, scale)


if __name__ == "__main__":
    main()
