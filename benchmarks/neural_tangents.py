"""Kernels of infinite width against neural-tangents, each side in a process of its own.

neural-tangents needs an old JAX, hence an environment of its own, with Python 3.11 or older:

    pip install neural-tangents==0.6.5 'jax==0.4.23' 'jaxlib==0.4.23' 'numpy<2' 'scipy<1.13'
    python benchmarks/neural_tangents.py --peer-python its/bin/python

Speed: float32, NTK of one set of samples (x2 = x1), jitted on both sides; without --peer-python
only ntkflow runs. Agreement: float64, kernels of some 440 networks against those that are stored
in tests/kernels/infinite/reference; it takes minutes, and --agreement asks for it. This file runs
under both interpreters: what one of them lacks is imported in functions.
"""

import functools
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import peer
import timing

PEER = peer.NAME


class Case(NamedTuple):
    """Shape of the inputs, number of hidden layers, and how many entries a kernel has per layer.

    `positions` counts pairs of positions that one pair of samples needs.
    """

    shape: tuple[int, ...]
    depth: int
    positions: int = 1

    @property
    def convolutional(self) -> bool:
        return len(self.shape) == 4


CASES = {
    "dense": Case((1000, 100), 3),
    "flattened": Case((64, 16, 16, 3), 5, 16**2),
    "pooled": Case((16, 8, 8, 3), 3, 8**4),
}
W_STD = 2**0.5
# Of one ReLU layer for one entry: ρ from the covariance and two reciprocal norms (4), √(1 − ρ²)
# (3), an arc cosine by a polynomial (20), both expectations (7), NNGP and NTK (6); and the sums
# over a 3 × 3 window along two axes, of both kernels (10). Roots and quotients count as one.
ACTIVATION_FLOPS, WINDOW_FLOPS = 40, 10
ENTRIES = 2**20  # of the arrays that rates are measured with: as many as the cases have, roughly


def main() -> None:
    if "--serve" in sys.argv:
        return peer.serve(clock, save)
    peer_python, with_agreement, options = arguments()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for name, case in CASES.items():
            np.save(Path(folder) / f"{name}.npy", rng.normal(size=case.shape).astype(np.float32))
        tables = [contest(Path(folder), options.rounds, peer_python)]
    if with_agreement:
        tables.append(agreement())
    timing.report(__file__, tables, load, options.markdown)


def arguments():
    """The shared options, after those of this file alone are taken out."""
    peer_python, with_agreement = peer.take("--peer-python"), peer.take_flag("--agreement")
    return peer_python, with_agreement, timing.arguments(__doc__)


def contest(folder, rounds, peer_python):
    sides = {"ntkflow": timing.Worker(JAX_PLATFORMS="cpu")}
    exact = None
    if peer_python:
        sides = {PEER: peer.Peer(__file__, peer_python), **sides}
        exact = peer.Peer(__file__, peer_python, JAX_ENABLE_X64="1")
    rates = sides["ntkflow"](measured_rates)
    rows = []
    for name, case in CASES.items():
        clocks = {
            side: functools.partial(worker, clock, side, name, str(folder))
            for side, worker in sides.items()
        }
        times = timing.race(clocks, rounds)
        limit = max(least_times(case, rates))
        reference = kernel_of(exact, PEER, name, folder) if exact else None
        for side, time in times.items():
            first = time.start + time.run
            run_ratio = first_ratio = error = "-"
            if exact:
                run_ratio = timing.ratio(time.run, times[PEER].run)
                first_ratio = timing.ratio(first, times[PEER].start + times[PEER].run)
                found = kernel_of(sides[side], side, name, folder)
                error = f"{np.max(np.abs(found - reference)) / np.max(np.abs(reference)):.0e}"
            rows.append(
                [
                    f"{name}: {side}",
                    f"{1e3 * time.run:.1f}",
                    run_ratio,
                    f"{first:.2f}",
                    first_ratio,
                    f"{1e3 * limit:.1f}",
                    f"{limit / time.run:.0%}",
                    error,
                ]
            )
    remark = (
        "dense: 3 hidden layers, 1000 samples of 100 features; flattened: 5 convolutions of 3 × 3, "
        "SAME, on 64 images of 16 × 16 × 3, then all positions into one output; pooled: 3 such "
        "convolutions on 16 images of 8 × 8 × 3, then their average. ReLU, NTK parameterization. "
        "run: the minimum; first: the first call, from the definition of the network on, with "
        f"tracing and compilation; ratio: to {PEER}. limit: the larger of two times. Arithmetic: "
        f"what each pair of samples needs once, {ACTIVATION_FLOPS} operations per entry of the "
        f"kernel and layer and {WINDOW_FLOPS} for a convolution, at the "
        f"{rates['arithmetic'] / 1e9:.1f} Gflop/s of a polynomial in XLA, with the Gram matrix at "
        f"{rates['product'] / 1e9:.0f}. Traffic: each "
        "layer reads and writes NNGP and NTK once, whole matrices, at the "
        f"{rates['streaming'] / 1e9:.1f} GB/s of an addition of arrays of that size."
    )
    if exact:
        versions = sides[PEER](peer.versions)
        remark += (
            f" error: largest difference to {PEER} in float64, by its largest entry. {versions}."
        )
    else:
        remark += f" {PEER} is left out: name its interpreter with --peer-python."
    for worker in [*sides.values(), *([exact] if exact else [])]:
        worker.close()
    columns = ["NTK", "run, ms", "ratio", "first, s", "ratio", "limit, ms", "of limit", "error"]
    return timing.Table(f"Infinite width, against {PEER}", columns, rows, remark)


# The contenders: a function of one array that returns the NTK, not built until it is called.


def ntkflow_kernel(case):
    import flax.linen as nn
    import jax

    from ntkflow.kernels.infinite import infinite_width
    from ntkflow.layers import Dense

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(case.depth):
                if case.convolutional:
                    scale = W_STD / math.sqrt(9 * x.shape[-1])
                    normal = nn.initializers.normal(1.0)
                    x = scale * nn.Conv(128, (3, 3), use_bias=False, kernel_init=normal)(x)
                else:
                    x = Dense(128, w_std=W_STD)(x)
                x = nn.relu(x)
            x = x.mean((1, 2)) if case == CASES["pooled"] else x.reshape(x.shape[0], -1)
            return Dense(1)(x)

    kernel = infinite_width(Network())
    return jax.jit(lambda x: kernel(x).ntk)


def peer_kernel(case):
    import jax
    from neural_tangents import stax

    layers = []
    for _ in range(case.depth):
        if case.convolutional:
            layers.append(stax.Conv(128, (3, 3), padding="SAME", W_std=W_STD))
        else:
            layers.append(stax.Dense(128, W_std=W_STD))
        layers.append(stax.Relu())
    if case.convolutional:
        layers.append(stax.GlobalAvgPool() if case == CASES["pooled"] else stax.Flatten())
    _, _, kernel = stax.serial(*layers, stax.Dense(1))
    return jax.jit(lambda x: kernel(x, None, "ntk"))


@functools.cache
def samples(name, folder):
    """On the device, before any clock starts: JAX itself has started then."""
    import jax

    return jax.block_until_ready(jax.device_put(np.load(Path(folder) / f"{name}.npy")))


@functools.cache
def contender(side, name):
    return {PEER: peer_kernel, "ntkflow": ntkflow_kernel}[side](CASES[name])


def clock(side, name, folder):
    """Seconds of one call; the first builds the function too. Imports come before."""
    if side == PEER:
        import neural_tangents  # noqa: F401
    else:
        import ntkflow.kernels.infinite  # noqa: F401
    x = samples(name, folder)
    return timing.seconds(lambda: contender(side, name)(x))


def save(side, name, folder):
    np.save(Path(folder) / "kernel.npy", np.asarray(contender(side, name)(samples(name, folder))))


def kernel_of(worker, side, name, folder):
    worker(save, side, name, str(folder))
    return np.load(folder / "kernel.npy").astype(np.float64)


# Agreement.


def agreement():
    worker = timing.Worker(JAX_PLATFORMS="cpu", JAX_ENABLE_X64="1")
    families, tolerances = worker(list_cases)
    rows, refused, apart = [], [], []
    for family, names in families.items():
        found = {name: worker(disagreement, name) for name in names}
        values = {name: value for name, value in found.items() if isinstance(value, float)}
        refused += [f"{name} ({found[name]})" for name in names if name not in values]
        missed = [name for name, value in values.items() if not value < tolerances[name]]
        apart += [f"{name} ({values[name]:.0e})" for name in missed]
        worst = f"{max(values.values()):.0e}" if values else "-"
        rows.append([family, f"{len(names)}", f"{len(values) - len(missed)}", worst])
    worker.close()
    remark = (
        "NNGP and NTK of 3 samples with themselves and with 2 others: largest difference by "
        f"largest entry, and how many are within 1e-10, with quadrature 1e-6, or what {PEER} "
        "merits (4e-8 at most: its NTK of flattened ReLU convolutions)."
    )
    remark += f" Apart: {', '.join(apart)}." if apart else ""
    remark += f" Refused: {', '.join(refused)}." if refused else ""
    columns = ["float64", "networks", "within", "worst"]
    return timing.Table(f"Agreement with {PEER}", columns, rows, remark)


def architectures():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "kernels" / "infinite"))
    import architectures

    return architectures


def list_cases():
    """Families of cases, and the tolerance of each case."""
    module, families = architectures(), {}
    for name, case in module.CASES.items():
        family = name.split("/")[0] + ("" if case.closed else ", quadrature")
        families.setdefault(family, []).append(name)
    return families, {name: module.reference(name).tolerance for name in module.CASES}


def disagreement(name):
    """A number, or why there is none."""
    from ntkflow.kernels.infinite import infinite_width

    module = architectures()
    try:
        return module.disagreement(infinite_width(module.CASES[name].module), name)
    except Exception as error:  # whatever it is, the table goes on
        return f"{type(error).__name__}: {error}".split("\n")[0][:100]


# The limit.


def measured_rates():
    """Operations per second of a polynomial and of a matrix product, bytes per second of a sum."""
    import jax
    import jax.numpy as jnp

    degree, side = 64, math.isqrt(ENTRIES)
    x, y = jnp.linspace(0.0, 1.0, ENTRIES), jnp.ones(ENTRIES)
    matrix = x.reshape(side, side)
    polynomial = jax.jit(lambda x: functools.reduce(lambda p, c: p * x + c, range(degree), x))
    clocks = {
        "arithmetic": lambda: timing.seconds(functools.partial(polynomial, x)),
        "streaming": lambda: timing.seconds(functools.partial(jax.jit(jnp.add), x, y)),
        "product": lambda: timing.seconds(functools.partial(jax.jit(jnp.matmul), matrix, matrix)),
    }
    times = timing.race(clocks, 10, at_least=0.5)
    work = {"arithmetic": 2 * degree * ENTRIES, "streaming": 12 * ENTRIES, "product": 2 * side**3}
    return {name: work[name] / times[name].run for name in work}


def least_times(case, rates):
    """Seconds that arithmetic and memory traffic need at the least, at the measured rates."""
    n, *_, features = case.shape
    flops = ACTIVATION_FLOPS + case.convolutional * WINDOW_FLOPS
    once = n * (n + 1) // 2 * case.positions
    gram = 2 * once * features / rates["product"]
    arithmetic = gram + case.depth * flops * once / rates["arithmetic"]
    traffic = case.depth * 16 * n**2 * case.positions / rates["streaming"]
    return arithmetic, traffic


if __name__ == "__main__":
    main()
