"""The width study of joint training: 6 million steps of tiny autoencoders, and PyTorch on a part.

Gradient descent on 20 samples of 10 features in float64, as in examples/nguyen2019_joint_training:
ten widths × three regimes × 50 seeds × 4000 steps, the loss of every step kept, against the speed
of one large matrix product. Meant for two cores: PyTorch gets two threads, JAX two CPU devices.
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

from ntkflow import data, descend, over_devices, over_seeds, squared_loss
from ntkflow.systems.autoencoder import Autoencoder, weights

SAMPLES, FEATURES, STEP_SIZE, SEEDS, STEPS = 20, 10, 1.0, 50, 4000
WIDTHS = (10, 14, 20, 28, 40, 57, 80, 113, 160, 320)
PART_SEEDS, PART_STEPS = 4, 500
TOLERANCE = 1e-9  # of the losses of a part in float64, relative

# Products of a step, each of 2ndm operations. Encoder: Wᵀx, A h, and for the gradient Aᵀ r and
# X s; joint: r hᵀ too. Without training the encoder, its hidden layer stays as it is.
PRODUCTS = {"encoder": 4, "both": 5, "decoder": 2}


def main(seeds: int = SEEDS, steps: int = STEPS) -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    wide = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    workers = {
        "one": timing.Worker(JAX_NUM_CPU_DEVICES="1", **wide),
        "two": timing.Worker(JAX_NUM_CPU_DEVICES="2", **wide),
    }
    if importlib.util.find_spec("torch"):
        workers["torch"] = timing.Worker()
    clocks = {"large": functools.partial(workers["one"], clock_large_product)}
    for width in (WIDTHS[0], WIDTHS[-1]):
        clocks[width] = functools.partial(workers["two"], clock_small_products, width)
    products = {
        name: 1 / time.run for name, time in timing.race(clocks, 3 * options.rounds).items()
    }
    tables = [
        study(workers["two"], options.rounds, seeds, steps, products),
        part(workers, options.rounds),
    ]
    for worker in workers.values():
        worker.close()
    timing.report(__file__, tables, load, options.markdown)


def operations(trains, width, steps):
    """Floating-point operations of the matrix products of one seed; the last loss is one more."""
    per_product = 2 * SAMPLES * FEATURES * width
    return ((PRODUCTS[trains] * steps) + (1 if trains == "decoder" else 2)) * per_product


# The study.


def study(worker, rounds, seeds, steps, products):
    rows, total = [], np.zeros(3)
    for trains in PRODUCTS:
        own = np.zeros(3)
        for width in WIDTHS:
            clock = functools.partial(worker, clock_study, trains, width, seeds, steps)
            time = timing.race({"study": clock}, min(rounds, 2))["study"]
            own += [time.start, time.run, seeds * operations(trains, width, steps)]
            if width in (WIDTHS[0], WIDTHS[-1]):
                needed = np.array([time.start, time.run, seeds * operations(trains, width, steps)])
                rows.append(row(f"{trains}, m = {width}", needed, seeds * steps, products))
        rows.append(row(f"{trains}, all widths", own, len(WIDTHS) * seeds * steps, products))
        total += own
    runs = len(PRODUCTS) * len(WIDTHS) * seeds
    rows.append(row("the study", total, runs * steps, products))
    small = ", ".join(f"{products[m] / 1e9:.0f} for m = {m}" for m in (WIDTHS[0], WIDTHS[-1]))
    remark = (
        f"{len(WIDTHS)} widths from {WIDTHS[0]} to {WIDTHS[-1]}, {seeds} seeds, {steps} steps; one "
        "program per width and regime, seeds one after another on each of two devices. Start is "
        "tracing and compilation; operations are those of the matrix products; the limit is the "
        f"speed of one large product in float64, {products['large'] / 1e9:.0f} Gflop/s. Products "
        f"of a step's size alone, xᵀ(x W) in a loop on both devices, Gflop/s: {small}."
    )
    columns = ["width study", "start, s", "run, s", "µs/step", "10⁹ flop", "Gflop/s", "of limit"]
    return timing.Table("The width study", columns, rows, remark)


def row(name, measured, steps, products):
    start, run, needed = measured
    return [
        name,
        f"{start:.1f}",
        f"{run:.2f}",
        f"{1e6 * run / steps:.1f}",
        f"{needed / 1e9:.1f}",
        f"{needed / run / 1e9:.1f}",
        f"{needed / run / products['large']:.0%}",
    ]


def clock_study(trains, width, seeds, steps):
    return timing.seconds(contender(trains, width, seeds, steps, 1))


def experiment(trains, width, steps):
    """One run with one key, which draws the data as well."""
    module = Autoencoder(width, trains=trains)
    run = descend(squared_loss(module.apply), optax.sgd(STEP_SIZE), steps)

    def train(key):
        data_key, key = jax.random.split(key)
        x = data.sphere(data_key, SAMPLES, FEATURES)
        return run(module.init(key, x), (x, x)).history["loss"]

    return train


def keys(seeds):
    return jnp.stack([jax.random.key(seed) for seed in range(seeds)])


@functools.cache
def contender(trains, width, seeds, steps, batch):
    """A function of nothing that trains all seeds and returns losses (seeds, steps + 1)."""
    mapped = over_seeds(experiment(trains, width, steps), batch=batch)
    run = over_devices(mapped) if jax.local_device_count() > 1 else jax.jit(mapped)
    chosen = keys(seeds)
    return lambda: run(chosen)


# Matrix products alone: what a machine can do, and what it can do in pieces of this size.


def clock_large_product():
    """Seconds per floating-point operation."""
    call, size = large_product()
    return min(timing.seconds(call) for _ in range(3)) / (2 * size**3)


@functools.cache
def large_product(size=2048):
    a, multiply = jnp.ones((size, size)), jax.jit(jnp.matmul)
    return (lambda: multiply(a, a)), size


def clock_small_products(width):
    """Seconds per floating-point operation, on all devices together."""
    call, needed = small_products(width)
    return min(timing.seconds(call) for _ in range(3)) / needed


@functools.cache
def small_products(width, repeats=2000):
    """x W, and xᵀ times it, again and again: each waits for the one before."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(SAMPLES, FEATURES)))
    x = x / jnp.linalg.norm(x, 2)
    devices = jax.local_device_count()
    start = jnp.ones((devices, FEATURES, width))
    loop = jax.pmap(lambda w: jax.lax.fori_loop(0, repeats, lambda _, w: x.T @ (x @ w), w))
    return (lambda: loop(start)), devices * repeats * 4 * SAMPLES * FEATURES * width


# A part of it, with PyTorch beside.


def part(workers, rounds):
    contenders = {
        "ntkflow, 2 devices": ("two", 1),
        "ntkflow, 1 device": ("one", 1),
        "ntkflow, 1 device, vmap": ("one", PART_SEEDS),
        "PyTorch, 1 thread": ("torch", 1),
        "PyTorch, 2 threads": ("torch", 2),
    }
    contenders = {name: place for name, place in contenders.items() if place[0] in workers}
    rows, apart = [], 0.0
    for width in (40, 320):
        drawn = workers["one"](draw, width)

        def ask(function, place, option, width=width, drawn=drawn):
            return workers[place](function, place, width, option, drawn)

        clocks = {
            name: functools.partial(ask, clock_part, *place) for name, place in contenders.items()
        }
        times = timing.race(clocks, rounds)
        losses = {name: ask(losses_of, *place) for name, place in contenders.items()}
        reference = losses["ntkflow, 1 device"]
        apart = max(apart, *(np.max(np.abs(own / reference - 1)) for own in losses.values()))
        base = times["ntkflow, 2 devices"].run
        rows += [
            [
                f"m = {width}, {name}",
                f"{time.run:.3f}",
                timing.ratio(time.run, base),
                f"{1e6 * time.run / (PART_SEEDS * PART_STEPS):.0f}",
            ]
            for name, time in times.items()
        ]
    if not apart < TOLERANCE:
        raise SystemExit(f"The contenders' losses differ by {apart:.1e} of their value.")
    remark = (
        f"Joint training, {PART_SEEDS} seeds, {PART_STEPS} steps, the loss of every step kept; "
        "PyTorch runs one seed after another. From the same data and weights, all losses agree to "
        f"{apart:.0e} of their value."
    )
    if "torch" not in workers:
        remark += " PyTorch is left out: torch cannot be imported (pip install torch==2.13.0)."
    return timing.Table(
        "A part, beside PyTorch", ["joint training", "run, s", "ratio", "µs/step"], rows, remark
    )


def draw(width):
    """Data and weights of all seeds as NumPy arrays: x, W and A."""

    def one(key):
        data_key, key = jax.random.split(key)
        x = data.sphere(data_key, SAMPLES, FEATURES)
        return x, *weights(Autoencoder(width).init(key, x))

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys(PART_SEEDS)))


def clock_part(place, width, option, drawn):
    if place != "torch":
        return timing.seconds(contender("both", width, PART_SEEDS, PART_STEPS, option))
    return timing.seconds(functools.partial(torch_losses, option, *drawn))


def losses_of(place, width, option, drawn):
    if place == "torch":
        return torch_losses(option, *drawn)
    return np.asarray(contender("both", width, PART_SEEDS, PART_STEPS, option)())


def torch_losses(threads, xs, encoders, decoders):
    """What a user of PyTorch writes: one seed after another."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)

    class Autoencoder(torch.nn.Module):
        def __init__(self, encoder, decoder):
            super().__init__()
            self.encoder = torch.nn.Parameter(torch.from_numpy(encoder.copy()))
            self.decoder = torch.nn.Parameter(torch.from_numpy(decoder.copy()))
            self.scale = 1 / math.sqrt(decoder.size)

        def forward(self, x):
            return self.scale * (torch.relu(x @ self.encoder) @ self.decoder.T)

    losses = torch.empty(len(xs), PART_STEPS + 1, dtype=torch.float64)
    for seed, (x, encoder, decoder) in enumerate(zip(xs, encoders, decoders, strict=True)):
        x = torch.from_numpy(x.copy())
        model = Autoencoder(encoder, decoder)
        optimizer = torch.optim.SGD(model.parameters(), lr=STEP_SIZE)
        for step in range(PART_STEPS):
            loss = 0.5 * (model(x) - x).square().sum()
            losses[seed, step] = loss.detach()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            losses[seed, PART_STEPS] = 0.5 * (model(x) - x).square().sum()
    return losses.numpy()


if __name__ == "__main__":
    main()
