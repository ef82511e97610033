"""What it costs to record a kernel along a run: 1000 steps of gradient descent, every 100 steps.

Full batch, float32, several seeds in one jitted study. A two-layer ReLU network with one output,
its output layer fixed, and a network with three hidden layers and ten outputs, all layers trained.
"""

import functools
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import timing

from ntkflow.kernels.empirical import empirical_ntk, ntk_diagonal
from ntkflow.layers import Dense
from ntkflow.parameters import partition
from ntkflow.systems.two_layer_relu import TwoLayerReLU
from ntkflow.training import Snapshot, descend, over_seeds, squared_loss
from ntkflow.training.kernel_observers import kernel_observer

SEEDS, STEPS, EVERY, FEATURES, SUBSAMPLE = 4, 1000, 100, 50, 32
CASES = {"two layers": (100, 1024, 1), "MLP": (128, 256, 10)}  # samples, width, outputs
SCALARS = (
    "trace",
    "smallest_eigenvalue",
    "largest_eigenvalue",
    "condition_number",
    "effective_rank",
    "alignment",
    "centered_alignment",
)
RECORDED = {
    "the loss alone": None,
    "trace": {"quantities": "trace"},
    "trace, by ntk_diagonal": {"quantities": "trace", "diagonal": True},
    "λ_min": {"quantities": "smallest_eigenvalue"},
    "alignment": {"quantities": "alignment"},
    "distance": {"quantities": "distance"},
    "distance, reference given": {"quantities": "distance", "reference": True},
    "all of them": {"quantities": (*SCALARS, "distance")},
    f"all, of {SUBSAMPLE} samples": {
        "quantities": (*SCALARS, "distance"),
        "samples": SUBSAMPLE,
    },
}


class Network(nn.Module):
    """Three hidden layers, `outputs` outputs."""

    width: int
    outputs: int

    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = nn.relu(Dense(self.width, w_std=2**0.5)(x))
        return Dense(self.outputs)(x)


def main() -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    worker = timing.Worker(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1")
    tables = [worker(table, case, options.rounds) for case in CASES]
    worker.close()
    timing.report(__file__, tables, load, options.markdown)


def table(case, rounds):
    n, width, outputs = CASES[case]
    clocks = {name: functools.partial(timing.seconds, contender(case, name)) for name in RECORDED}
    times = timing.race(clocks, rounds)
    plain, records = times["the loss alone"].run, STEPS // EVERY + 1
    operations = {name: counted(case, name) for name in RECORDED}
    rows = [
        [
            name,
            f"{time.run:.3f}",
            timing.ratio(time.run, plain),
            f"{1e3 * max(time.run - plain, 0) / SEEDS / records:.2f}",
            f"{operations[name]:.1%}",
            f"{time.start:.2f}",
        ]
        for name, time in times.items()
    ]
    remark = (
        f"{SEEDS} seeds, {STEPS} steps, {records} records of each; {n} samples of {FEATURES} "
        f'features, width {width}, {outputs} outputs; empirical_ntk(apply, outputs="trace"). The '
        "fourth column is what one record of one seed adds. Counted: the floating-point operations "
        f"of a record, without those of LAPACK, beside those of {EVERY} steps. Without a reference "
        "distance needs the kernel at step 0: counted each time, but it depends on no step, and "
        "XLA computes it once in a run."
    )
    columns = [f"{case}: recorded", "run, s", "ratio", "a record, ms", "counted", "start, s"]
    return timing.Table(f"Recording a kernel, {case}", columns, rows, remark)


def network(case):
    _, width, outputs = CASES[case]
    return TwoLayerReLU(width) if case == "two layers" else Network(width, outputs)


def observers(case, name, params, x):
    """What is recorded, for `descend(..., observe=...)`."""
    apply, choices = network(case).apply, dict(RECORDED[name] or {})
    build = ntk_diagonal if choices.pop("diagonal", False) else empirical_ntk
    kernel = build(apply, outputs="trace")
    if choices.pop("reference", False):
        choices["reference"] = kernel(params, x)
    return {"ntk": kernel_observer(kernel, **choices)} if choices else {}


@functools.cache
def contender(case, name):
    """A function of nothing that trains all seeds and returns their histories."""
    module = network(case)
    x, y = data(case)
    loss = squared_loss(module.apply, "mean")

    def experiment(key, x, y):
        params = module.init(key, x)
        observe = observers(case, name, params, x)
        run = descend(loss, optax.sgd(0.05), STEPS, every=EVERY, observe=observe)
        return run(params, (x, y)).history

    study = jax.jit(over_seeds(experiment))
    keys = jax.random.split(jax.random.key(0), SEEDS)
    return lambda: study(keys, x, y)


def counted(case, name):
    """Operations of one record, as a share of those of the steps between two records."""
    module, (x, y) = network(case), data(case)
    params = module.init(jax.random.key(0), x)
    selected, merge = partition(params)
    loss = squared_loss(module.apply, "mean")
    observe = observers(case, name, params, x)

    def record(now, initial):
        snapshot = Snapshot(0, now, initial, (x, y))
        return {key: observer(snapshot) for key, observer in observe.items()}

    def flops(function, *args):
        return jax.jit(function).lower(*args).compile().cost_analysis().get("flops", 0.0)

    step = flops(jax.value_and_grad(lambda part: loss(merge(part), (x, y))), selected)
    return flops(record, params, params) / step / EVERY


def data(case):
    """Points on the unit sphere, and Gaussian labels."""
    n, _, outputs = CASES[case]
    generator = np.random.default_rng(0)
    x = generator.normal(size=(n, FEATURES)).astype(np.float32)
    y = generator.normal(size=(n, outputs)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return jnp.asarray(x), jnp.asarray(y[:, 0] if outputs == 1 else y)


if __name__ == "__main__":
    main()
