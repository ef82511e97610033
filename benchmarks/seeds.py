"""Sixteen seeds of a two-layer ReLU network: ways to map them, and a plain PyTorch loop.

Full-batch gradient descent on 100 samples of 50 features, width 2000, 60 steps, float32; the first
layer is trained, the output layer is fixed at ±1. Meant for two cores: PyTorch gets two threads,
JAX one CPU device with two threads, or two devices.
"""

import functools
import importlib.util
import math
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing

from ntkflow.layers import Dense
from ntkflow.systems.two_layer_relu import TwoLayerReLU
from ntkflow.training import descend, mapping, over_devices, over_seeds, squared_loss

SEEDS, SAMPLES, FEATURES, WIDTH, STEPS, STEP_SIZE = 16, 100, 50, 2000, 60, 0.05
TOLERANCE = 1e-4  # of the losses after 60 steps in float32, relative


def main() -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    workers = {
        "one": timing.Worker(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1"),
        "two": timing.Worker(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="2"),
    }
    if importlib.util.find_spec("torch"):
        workers["torch"] = timing.Worker()
    tables = [
        contest(workers, options.rounds),
        overhead(workers["one"], options.rounds),
        sweep(workers["one"], options.rounds),
    ]
    for worker in workers.values():
        worker.close()
    timing.report(__file__, tables, load, options.markdown)


# The contest: the same work done in each way.


def contest(workers, rounds):
    contenders = {
        "vmap": ("one", "vmap"),
        "over_seeds": ("one", "over_seeds"),
        "lax.map": ("one", "lax.map"),
        "lax.map, 1 of 2 devices": ("two", "lax.map"),
        "over_devices, 2 devices": ("two", "over_devices"),
        "PyTorch, loop over seeds": ("torch", "torch"),
    }
    contenders = {name: place for name, place in contenders.items() if place[0] in workers}
    clocks = {
        name: functools.partial(workers[place], clock, kind)
        for name, (place, kind) in contenders.items()
    }
    times = timing.race(clocks, rounds)

    initial = workers["one"](initial_weights)
    losses = {
        name: workers[place](losses_of, kind, initial) for name, (place, kind) in contenders.items()
    }
    apart = max(np.max(np.abs(own / losses["vmap"] - 1)) for own in losses.values())
    if not apart < TOLERANCE:
        raise SystemExit(f"The contenders' losses differ by {apart:.1e} of their value.")

    large, own = (1024, 1024, 1024), (SAMPLES, FEATURES, WIDTH)
    products = {
        "1024 × 1024 × 1024 in JAX": ("one", "jax", large),
        "100 × 50 × 2000 in JAX": ("one", "jax", own),
        "1024 × 1024 × 1024 in PyTorch": ("torch", "torch", large),
        "100 × 50 × 2000 in PyTorch": ("torch", "torch", own),
    }
    products = {name: place for name, place in products.items() if place[0] in workers}
    product_clocks = {
        name: functools.partial(workers[place], clock_product, library, shape)
        for name, (place, library, shape) in products.items()
    }
    product_times = timing.race(product_clocks, 3 * rounds)
    speed = {name: 2 * math.prod(products[name][2]) / product_times[name].run for name in products}
    peak = speed["1024 × 1024 × 1024 in JAX"]

    # Per step: x W, and xᵀ times the gradient at it; at the end one more x W, for the last loss.
    needed = SEEDS * (4 * STEPS + 2) * SAMPLES * FEATURES * WIDTH
    reference = times["vmap"].run
    rows = [
        [
            name,
            f"{time.run:.3f}",
            timing.ratio(time.run, reference),
            f"{time.start:.2f}",
            f"{needed / time.run / 1e9:.0f}",
            f"{needed / time.run / peak:.0%}",
        ]
        for name, time in times.items()
    ]
    peaks = ", ".join(f"{name} {value / 1e9:.0f}" for name, value in speed.items())
    remark = (
        "Each is one jitted function of the keys (over_devices: one pmap), initialization "
        "included. lax.map is timed in a process with two devices as well: their presence must "
        f"make no difference. Matrix products need {needed / 1e9:.1f}·10⁹ floating-point "
        "operations; the limit is the speed of one large product in JAX. Products measured, in "
        f"Gflop/s: {peaks}. From the same weights, all losses agree to {apart:.0e} of their value."
    )
    if "torch" not in workers:
        remark += " PyTorch is left out: torch cannot be imported (pip install torch==2.13.0)."
    columns = ["60 steps", "run, s", "ratio", "start, s", "Gflop/s", "of limit"]
    return timing.Table("Ways to map 16 seeds", columns, rows, remark)


def clock(kind):
    return timing.seconds(contender(kind))


def losses_of(kind, initial):
    return np.asarray(torch_losses(initial) if kind == "torch" else contender(kind)())


@functools.cache
def data():
    """Points on the unit sphere, and Gaussian labels."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    y = generator.normal(size=SAMPLES).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


def keys():
    return jax.random.split(jax.random.key(0), SEEDS)


def initial_weights():
    """Of all seeds, as (first layer, output layer), shapes (seeds, d, m) and (seeds, m)."""
    variables = jax.vmap(lambda key: TwoLayerReLU(WIDTH).init(key, data()[0]))(keys())
    return np.asarray(variables["params"]["kernel"]), np.asarray(variables["fixed"]["output"])


def experiment(module, steps, batch_size=None, every=1, step_size=STEP_SIZE):
    """One run with one key: initialization, then the steps."""
    run = descend(
        squared_loss(module.apply),
        optax.sgd(step_size),
        steps,
        every=every,
        batch_size=batch_size,
    )

    def train(key, x, y):
        return run(module.init(key, x), (x, y), key).history["loss"]

    return train


def lax_map(train):
    return lambda keys, x, y: jax.lax.map(lambda key: train(key, x, y), keys)


@functools.cache
def contender(kind):
    """A function of nothing that trains all seeds and returns losses (seeds, steps + 1)."""
    if kind == "torch":
        return torch_losses
    train = experiment(TwoLayerReLU(WIDTH), STEPS)
    study = {
        "vmap": lambda: jax.jit(jax.vmap(train, in_axes=(0, None, None))),
        "over_seeds": lambda: jax.jit(over_seeds(train)),
        "lax.map": lambda: jax.jit(lax_map(train)),
        "over_devices": lambda: over_devices(over_seeds(train)),
    }[kind]()
    inputs = keys(), *(jnp.asarray(array) for array in data())
    return lambda: study(*inputs)


def torch_losses(initial=None):
    """What a user of PyTorch writes; `initial` replaces its own draw of the weights."""
    import torch

    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    x, y = (torch.from_numpy(array) for array in data())

    class TwoLayer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(FEATURES, WIDTH, bias=False)
            torch.nn.init.normal_(self.first.weight)
            self.register_buffer("signs", torch.randint(0, 2, (WIDTH,)) * 2.0 - 1.0)

        def forward(self, x):
            return torch.relu(self.first(x)) @ self.signs / math.sqrt(WIDTH)

    losses = torch.empty(SEEDS, STEPS + 1)
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = TwoLayer()
        if initial is not None:
            with torch.no_grad():
                model.first.weight.copy_(torch.from_numpy(initial[0][seed].T.copy()))
                model.signs.copy_(torch.from_numpy(initial[1][seed].copy()))
        optimizer = torch.optim.SGD(model.parameters(), lr=STEP_SIZE)
        for step in range(STEPS):
            loss = 0.5 * (model(x) - y).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[seed, step] = loss.detach()
        with torch.no_grad():
            losses[seed, STEPS] = 0.5 * (model(x) - y).square().sum()
    return losses.numpy()


def clock_product(library, shape):
    call = product(library, shape)
    return min(timing.seconds(call) for _ in range(20))


@functools.cache
def product(library, shape):
    """A function of nothing that multiplies two matrices (a, b) and (b, c)."""
    a, b = np.ones(shape[:2], np.float32), np.ones(shape[1:], np.float32)
    if library == "torch":
        import torch

        torch.set_num_threads(2)
        a, b = torch.from_numpy(a), torch.from_numpy(b)
        return lambda: a @ b
    a, b, multiply = jnp.asarray(a), jnp.asarray(b), jax.jit(jnp.matmul)
    return lambda: multiply(a, b)


# What `descend` costs over a scan written by hand.


def overhead(worker, rounds):
    rows = []
    for width in (8, WIDTH):
        rows += worker(overhead_rows, width, rounds)
    remark = (
        "One seed, 60 steps, or 10 epochs. By hand: a jitted lax.scan of `params − η·grad`, with "
        "the same network and loss; minibatches: a permutation per epoch, then a scan over it."
    )
    columns = ["one seed", "hand, ms", "descend, ms", "ratio", "starts, s"]
    return timing.Table("What descend adds", columns, rows, remark)


def overhead_rows(width, rounds):
    module, key, (x, y) = TwoLayerReLU(width), jax.random.key(0), data()
    x, y = jnp.asarray(x), jnp.asarray(y)
    variables = module.init(key, x)
    loss = squared_loss(module.apply)

    def step(params, batch):
        value, grad = jax.value_and_grad(lambda p: loss(variables | {"params": p}, batch))(params)
        return jax.tree.map(lambda p, g: p - STEP_SIZE * g, params, grad), value

    def full(params):
        return loss(variables | {"params": params}, (x, y))

    def by_hand(every_loss):
        def run(params):
            def one(params, _):
                params, value = step(params, (x, y))
                return params, value if every_loss else None

            params, values = jax.lax.scan(one, params, None, length=STEPS)
            return params, values, full(params)

        return run

    def by_hand_in_batches(params):
        def epoch(params, key):
            order = jax.random.permutation(key, SAMPLES).reshape(-1, 10)
            return jax.lax.scan(
                lambda p, rows: (step(p, (x[rows], y[rows]))[0], None), params, order
            )

        params, _ = jax.lax.scan(epoch, params, jax.random.split(key, 10))
        return params, full(params)

    def built_in(steps, every, batch_size=None):
        run = descend(loss, optax.sgd(STEP_SIZE), steps, every=every, batch_size=batch_size)
        return lambda params: run(variables | {"params": params}, (x, y), key)

    pairs = {
        "loss of every step": (by_hand(True), built_in(STEPS, 1)),
        "first and last loss": (by_hand(False), built_in(STEPS, STEPS)),
        "minibatches of 10": (by_hand_in_batches, built_in(100, 100, 10)),
    }
    rows = []
    for name, pair in pairs.items():
        calls = {
            kind: functools.partial(jax.jit(f), variables["params"])
            for kind, f in zip(("hand", "descend"), pair, strict=True)
        }
        clocks = {kind: functools.partial(timing.seconds, call) for kind, call in calls.items()}
        times = timing.race(clocks, 3 * rounds, at_least=0.5)
        rows.append(
            [
                f"m = {width}, {name}",
                f"{1e3 * times['hand'].run:.2f}",
                f"{1e3 * times['descend'].run:.2f}",
                timing.ratio(times["descend"].run, times["hand"].run),
                f"{times['hand'].start:.2f}, {times['descend'].start:.2f}",
            ]
        )
    return rows


# Where vmap stops to pay on a CPU.


class Deep(nn.Module):
    """Three hidden layers of `width`, one output."""

    width: int

    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.relu(Dense(self.width, w_std=2**0.5)(x))
        return Dense(1)(x)[:, 0]


def sweep(worker, rounds):
    settings = {
        "full batch": [(TwoLayerReLU(m), 10, None) for m in (8, 32, 128, 512, 2000)],
        "minibatch of 10": [(TwoLayerReLU(m), 50, 10) for m in (8, 32, 128, 512, 2000)],
        "3 hidden layers": [(Deep(m), 5, None) for m in (8, 32, 128, 512)],
    }
    rows = []
    for name, cases in settings.items():
        for module, steps, batch_size in cases:
            rows.append(worker(sweep_row, name, module, steps, batch_size, rounds))
    remark = (
        "Counted: floating-point operations of one seed as XLA counts them, a loop's body once; "
        f"over_seeds takes vmap below {mapping._CPU_VMAP_LIMIT:.0e}, lax.map above."
    )
    columns = ["16 seeds", "counted", "vmap, ms", "map, ms", "map/vmap", "default"]
    return timing.Table("vmap or lax.map on a CPU", columns, rows, remark)


def sweep_row(name, module, steps, batch_size, rounds):
    train = experiment(module, steps, batch_size, every=steps, step_size=0.01)
    inputs = keys(), *(jnp.asarray(array) for array in data())
    studies = {"vmap": jax.vmap(train, in_axes=(0, None, None)), "lax.map": lax_map(train)}
    calls = {kind: functools.partial(jax.jit(study), *inputs) for kind, study in studies.items()}
    clocks = {kind: functools.partial(timing.seconds, call) for kind, call in calls.items()}
    times = timing.race(clocks, min(rounds, 5), at_least=0.2)
    jitted = jax.jit(train)
    operations = jitted.lower(keys()[0], *inputs[1:]).cost_analysis()["flops"]
    batch = mapping._choose_batch(jitted, inputs[0], inputs[1:])
    return [
        f"{name}, m = {module.width}",
        f"{operations:.1e}",
        f"{1e3 * times['vmap'].run:.2f}",
        f"{1e3 * times['lax.map'].run:.2f}",
        timing.ratio(times["lax.map"].run, times["vmap"].run),
        "vmap" if batch > 1 else "lax.map",
    ]


if __name__ == "__main__":
    main()
