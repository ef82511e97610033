"""Empirical NTK against neural-tangents and torch.func, each side in a process of its own.

neural-tangents needs an old JAX, hence an environment of its own, with Python 3.11 or older:

    pip install neural-tangents==0.6.5 'jax==0.4.23' 'jaxlib==0.4.23' 'numpy<2' 'scipy<1.13'
    python benchmarks/empirical.py --peer-python its/bin/python

float32, all outputs with all outputs, one set of samples (x2 = x1), jitted where there is a jit;
the same networks at the same parameters on all sides. Without --peer-python neural-tangents is
left out; on `--device gpu` both peers are. `--trial` takes small sizes, to see that it runs. This
file runs under both interpreters: what one of them lacks is imported in functions.
"""

import functools
import importlib.util
import itertools
import math
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import peer
import timing

TORCH = "torch.func"
METHODS = ("auto", "structured", "jacobian")
CHECKED = 16  # samples whose kernel is compared with float64


class Layer(NamedTuple):
    """A layer for one sample: positions, inputs that one output sees, outputs per position."""

    positions: int
    inputs: int
    outputs: int


class Case(NamedTuple):
    """Shape of the inputs, the network by name, its layers; without layers it is a Flax module."""

    samples: tuple[int, ...]
    network: str
    outputs: int
    layers: tuple[Layer, ...] = ()
    methods: tuple[str, ...] = METHODS


def dense(n, features, widths, outputs):
    sizes = (features, *widths, outputs)
    layers = tuple(Layer(1, a, b) for a, b in itertools.pairwise(sizes))
    return Case((n, features), "perceptron", outputs, layers)


def convolutional(n, side, channels, outputs):
    layers = (Layer(side**2, 27, channels), *[Layer(side**2, 9 * channels, channels)] * 2)
    return Case((n, side, side, 3), "convolutions", outputs, (*layers, Layer(1, channels, outputs)))


FLAX = ("auto", "jacobian")
CASES = {
    "two layers": dense(256, 64, (4096,), 1),
    "deep": dense(64, 64, (256,) * 4, 10),
    "convolutions": convolutional(8, 8, 32, 10),
    "transformer": Case((16, 16, 64), "transformer", 10, methods=FLAX),
    "LeNet": Case((16, 28, 28, 1), "lenet", 10, methods=FLAX),
}
TRIALS = {
    "two layers": dense(24, 8, (64,), 1),
    "deep": dense(18, 8, (16,) * 4, 3),
    "convolutions": convolutional(17, 4, 4, 3),
    "transformer": Case((17, 4, 8), "transformer", 10, methods=FLAX),
    "LeNet": Case((17, 28, 28, 1), "lenet", 10, methods=FLAX),
}
# Memory of the structured method: samples, outputs and width of the deep network.
GROWTH = [(32, 5, 128), (64, 5, 128), (32, 10, 128), (32, 5, 256)]


def cases(trial):
    return TRIALS if trial else CASES


def main() -> None:
    if "--serve" in sys.argv:
        return peer.serve(clock, save, temporary)
    peer_python, trial = peer.take("--peer-python"), peer.take_flag("--trial")
    device = peer.take("--device", "cpu")
    if device not in ("cpu", "gpu"):
        raise SystemExit(f"--device is {device}; expected cpu or gpu.")
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    platform = {"cpu": "cpu", "gpu": "cuda"}[device]
    workers = {"ntkflow": timing.Worker(JAX_PLATFORMS=platform)}
    exact = timing.Worker(JAX_PLATFORMS=platform, JAX_ENABLE_X64="1")
    if device == "cpu" and peer_python:
        workers[peer.NAME] = peer.Peer(__file__, peer_python)
    if device == "cpu" and importlib.util.find_spec("torch"):
        workers[TORCH] = timing.Worker()
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases(trial).items():
            draw(Path(folder) / f"{name}.npz", case)
        tables = [contest(workers, exact, folder, trial, options.rounds), growth(workers)]
    for worker in [*workers.values(), exact]:
        worker.close()
    timing.report(__file__, tables, load, options.markdown)


def contest(workers, exact, folder, trial, rounds):
    rate, device = workers["ntkflow"](product_rate), workers["ntkflow"](device_kind)
    rows = []
    for name, case in cases(trial).items():
        contenders = [("ntkflow", method) for method in case.methods]
        if case.layers:
            contenders += [(peer.NAME, "structured"), (peer.NAME, "jacobian"), (TORCH, "jacobian")]
        contenders = [(side, method) for side, method in contenders if side in workers]
        calls = {
            (side, method): functools.partial(
                workers[side], clock, side, method, name, folder, trial
            )
            for side, method in contenders
        }
        times = timing.race(calls, rounds)
        others = [time.run for (side, _), time in times.items() if side != "ntkflow"]
        best = min(others) if others else times["ntkflow", "jacobian"].run
        exact(save, "ntkflow", "jacobian", name, folder, trial, CHECKED)
        reference = np.load(Path(folder) / "kernel.npy")
        flops = operations(case)
        for (side, method), time in times.items():
            workers[side](save, side, method, name, folder, trial, 0)
            found = np.load(Path(folder) / "kernel.npy").astype(np.float64)
            temp = workers[side](temporary, side, method, name, folder, trial)
            counted = numbers(case, method)
            rows.append(
                [
                    f"{name}: {side} {method}",
                    f"{1e3 * time.run:.1f}",
                    timing.ratio(time.run, best),
                    f"{time.start + time.run:.2f}",
                    f"{4 * counted / 2**20:.0f}" if counted else "-",
                    f"{temp / 2**20:.0f}",
                    f"{flops / 1e9:.2f}" if flops else "-",
                    f"{flops / time.run / rate:.0%}" if flops else "-",
                    f"{np.max(np.abs(found - reference)) / np.max(np.abs(reference)):.0e}",
                ]
            )
    remark = (
        f"On {device}. {described(trial)} ReLU, NTK parameterization without biases; all layers "
        "trained. ratio: to the faster of the peers, or to ntkflow's jacobian where there is none. "
        "first: the first call, with tracing and compilation. counted: MiB of the numbers that the "
        "method holds, n·o·Σ|y| + n²·o²·s² for structured (|y| the size of a layer's result for "
        "one sample, s its positions, s = 1 for dense layers) and n·o·p for jacobian, p the "
        "parameters; temp: MiB of temporary buffers that XLA allots to the compiled function, "
        "results apart, or, for the peers, by what the first call raised their process's peak. "
        "Gflop: twice the multiplications of a forward pass, of one pass back per output and "
        "sample, and of the cheaper contraction of each layer, by Gram matrices or by its "
        f"Jacobian; of rate: at the {rate / 1e9:.0f} Gflop/s of a large float32 matrix product in "
        f"JAX. error: largest difference to float64, by its largest entry, {CHECKED} samples."
    )
    if peer.NAME in workers:
        remark += f" Of {peer.NAME}: {workers[peer.NAME](peer.versions)}."
    else:
        remark += f" {peer.NAME} is left out."
    remark += "" if TORCH in workers else f" {TORCH} is left out."
    columns = [
        "NTK",
        "run, ms",
        "ratio",
        "first, s",
        "counted",
        "temp",
        "Gflop",
        "of rate",
        "error",
    ]
    return timing.Table("Empirical NTK, all outputs", columns, rows, remark)


def described(trial):
    two, deep, images, tokens, _ = cases(trial).values()
    return (
        f"two layers: {two.samples[0]} samples of {two.samples[1]} features, width "
        f"{two.layers[0].outputs}, one output; deep: {len(deep.layers) - 1} hidden layers of "
        f"{deep.layers[0].outputs}, {deep.samples[0]} samples of {deep.samples[1]} features, "
        f"{deep.outputs} outputs; convolutions: three of 3 × 3, SAME, {images.layers[0].outputs} "
        f"channels, and global average pooling, {images.samples[0]} images of "
        f"{images.samples[1]} × {images.samples[1]} × 3, {images.outputs} outputs; transformer: "
        f"one block with 4 heads, {tokens.samples[0]} samples of {tokens.samples[1]} × "
        f"{tokens.samples[2]}; LeNet: 28 × 28 × 1."
    )


def growth(workers):
    rows = []
    for n, o, width in GROWTH:
        case = dense(n, 32, (width,) * 4, o)
        counted = 4 * numbers(case, "structured")
        temp = workers["ntkflow"](compiled_temporary, n, o, width)
        shape = f"n = {n}, o = {o}, width = {width}"
        rows.append(
            [
                shape,
                f"{counted / 2**20:.2f}",
                f"{temp / 2**20:.2f}",
                timing.ratio(temp, counted),
            ]
        )
    remark = (
        "Four hidden layers. counted: MiB of n·o·Σ|y| + n²·o² numbers; temp: what XLA allots to "
        "the compiled function beyond arguments and result."
    )
    columns = ["structured", "counted", "temp", "ratio"]
    return timing.Table("Memory of the structured method", columns, rows, remark)


# What is counted.


def operations(case):
    """Floating-point operations that the kernel needs, or 0 where layers are not listed."""
    n, o = case.samples[0], case.outputs
    total = 0
    for i, (positions, a, b) in enumerate(case.layers):
        total += 2 * n * positions * a * b
        if 0 < i < len(case.layers) - 1:  # cotangents behind the last layer are its weights
            total += 2 * n * o * positions * a * b
        if i == len(case.layers) - 1:  # each output has its own weights: one Gram matrix
            total += 2 * n**2 * a
            continue
        gram = 2 * (n * positions) ** 2 * a + 2 * (n * o * positions) ** 2 * b
        jacobian = 2 * n * o * positions * a * b + 2 * (n * o) ** 2 * a * b
        total += min(gram, jacobian)
    return total


def numbers(case, method):
    """Numbers that a method holds, or 0 where nothing is stated."""
    n, o = case.samples[0], case.outputs
    if not case.layers or method == "auto":
        return 0
    if method == "jacobian":
        return n * o * sum(a * b for _, a, b in case.layers)
    results = sum(positions * b for positions, _, b in case.layers)
    return n * o * results + (n * o * max(layer.positions for layer in case.layers)) ** 2


# The networks: functions that every JAX understands, and two Flax modules for ntkflow alone.


def perceptron(params, x):
    import jax

    *hidden, last = params.values()
    for w in hidden:
        x = jax.nn.relu(x @ w / math.sqrt(w.shape[0]))
    return x @ last / math.sqrt(last.shape[0])


def convolutions(params, x):
    import jax

    *filters, last = params.values()
    for w in filters:
        axes = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=axes)
        x = jax.nn.relu(y / math.sqrt(9 * w.shape[2]))
    return x.mean((1, 2)) @ last / math.sqrt(last.shape[0])


def transformer():
    import flax.linen as nn
    import jax.numpy as jnp

    normal = nn.initializers.normal()

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            width = x.shape[-1]
            x = x + self.param("positions", normal, (1, *x.shape[1:]), jnp.float32)
            x = x + nn.MultiHeadDotProductAttention(4)(nn.LayerNorm()(x))
            x = x + nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x))))
            return nn.Dense(10)(x.mean(1))

    return Block()


def lenet():
    import flax.linen as nn

    class LeNet(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.avg_pool(nn.relu(nn.Conv(6, (5, 5))(x)), (2, 2), (2, 2))
            x = nn.avg_pool(nn.relu(nn.Conv(16, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
            x = x.reshape(x.shape[0], -1)
            return nn.Dense(10)(nn.relu(nn.Dense(84)(nn.relu(nn.Dense(120)(x)))))

    return LeNet()


def draw(file, case):
    """Samples, and N(0, 1) for every weight, in one file for all sides."""
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=case.samples)}
    for i, (positions, a, b) in enumerate(case.layers):
        shape = (a, b) if positions == 1 else (3, 3, a // 9, b)
        arrays[f"w{i}"] = rng.normal(size=shape)
    np.savez(file, **{name: array.astype(np.float32) for name, array in arrays.items()})


@functools.cache
def network(name, folder, trial):
    """The network, its parameters and its samples, on the device before any clock starts."""
    import jax
    import jax.numpy as jnp

    case = cases(trial)[name]
    with np.load(Path(folder) / f"{name}.npz") as arrays:
        params = {key: jnp.asarray(arrays[key], float) for key in arrays.files}
    x = params.pop("x")
    if case.layers:
        return jax.block_until_ready((globals()[case.network], params, x))[0:3]
    module = globals()[case.network]()
    variables = module.init(jax.random.key(0), x)
    return module.apply, jax.tree.map(lambda leaf: leaf.astype(x.dtype), variables), x


# The contenders: a compiled function of nothing, not built until it is called.


@functools.cache
def contender(side, method, name, folder, trial) -> tuple[Callable, int | None]:
    """The kernel as a function of nothing, and the bytes of its temporary buffers."""
    if side == TORCH:
        return torch_kernel(cases(trial)[name], Path(folder) / f"{name}.npz"), None
    import jax

    apply, params, x = network(name, folder, trial)
    if side == peer.NAME:
        import neural_tangents as nt

        implementation = {
            "structured": nt.NtkImplementation.STRUCTURED_DERIVATIVES,
            "jacobian": nt.NtkImplementation.JACOBIAN_CONTRACTION,
        }[method]
        kernel = nt.empirical_ntk_fn(
            apply, trace_axes=(), vmap_axes=0, implementation=implementation
        )
        compiled = jax.jit(lambda params, x: kernel(x, None, params)).lower(params, x).compile()
    else:
        from ntkflow import empirical_ntk

        compiled = jax.jit(empirical_ntk(apply, method=method)).lower(params, x).compile()
    # That old JAX counts none on CPUs.
    temp = compiled.memory_analysis().temp_size_in_bytes if side == "ntkflow" else None
    return functools.partial(compiled, params, x), temp


def torch_kernel(case, file):
    """The recipe of torch.func's users: the Jacobian of one sample, vmapped, and an einsum."""
    import torch
    from torch.func import jacrev, vmap

    torch.set_num_threads(os.cpu_count())
    with np.load(file) as arrays:
        params = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    x = params.pop("x")
    if case.network == "convolutions":
        x = x.movedim(-1, 1)
        for key, w in params.items():
            params[key] = w.permute(3, 2, 0, 1).contiguous() if w.ndim == 4 else w

    def apply(params, x):
        *hidden, last = params.values()
        for w in hidden:
            if w.ndim == 4:
                y = torch.nn.functional.conv2d(x, w, padding="same")
                x = torch.relu(y / math.sqrt(9 * w.shape[1]))
            else:
                x = torch.relu(x @ w / math.sqrt(w.shape[0]))
        x = x.mean((2, 3)) if x.ndim == 4 else x
        return x @ last / math.sqrt(last.shape[0])

    def one_sample(params, sample):
        return apply(params, sample[None])[0]

    def kernel():
        jacobians = vmap(jacrev(one_sample), in_dims=(None, 0))(params, x)
        flat = [jacobian.flatten(2) for jacobian in jacobians.values()]
        return sum(torch.einsum("iap,jbp->ijab", j, j) for j in flat)

    return kernel


_grown = {}


def clock(side, method, name, folder, trial):
    """Seconds of one call; the first builds the function too. Imports come before."""
    if side == TORCH:
        import torch.func  # noqa: F401
    elif side == peer.NAME:
        import neural_tangents  # noqa: F401
    else:
        import ntkflow  # noqa: F401
    if side != TORCH:
        network(name, folder, trial)
    before = peak_memory()
    taken = timing.seconds(lambda: contender(side, method, name, folder, trial)[0]())
    _grown.setdefault((method, name), peak_memory() - before)
    return taken


def save(side, method, name, folder, trial, samples):
    """Write the kernel of some samples, the first `CHECKED`; with `samples`, compute no others."""
    if samples:
        from ntkflow import empirical_ntk

        apply, params, x = network(name, folder, trial)
        kernel = empirical_ntk(apply, method=method)(params, x[:samples])
    else:
        kernel = contender(side, method, name, folder, trial)[0]()
    np.save(Path(folder) / "kernel.npy", np.asarray(kernel)[:CHECKED, :CHECKED])


def temporary(side, method, name, folder, trial):
    """Bytes of temporary buffers, or, where nobody counts them, growth of the process's peak."""
    temp = contender(side, method, name, folder, trial)[1]
    return _grown[method, name] if temp is None else temp


def compiled_temporary(n, o, width):
    import jax

    from ntkflow import empirical_ntk

    case = dense(n, 32, (width,) * 4, o)
    shapes = {
        f"w{i}": jax.ShapeDtypeStruct(layer[1:], "float32") for i, layer in enumerate(case.layers)
    }
    kernel = jax.jit(empirical_ntk(perceptron, method="structured"))
    lowered = kernel.lower(shapes, jax.ShapeDtypeStruct(case.samples, "float32"))
    return lowered.compile().memory_analysis().temp_size_in_bytes


def peak_memory():
    """Of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def device_kind():
    import jax

    return f"{jax.devices()[0].device_kind} ({jax.default_backend()})"


def product_rate():
    """Operations per second of a large product of float32 matrices, in full precision."""
    import jax
    import jax.numpy as jnp

    side = 1024 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((side, side))
    product = jax.jit(functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST))
    times = timing.race({"product": lambda: timing.seconds(lambda: product(a, a))}, 10, 0.5)
    return 2 * side**3 / times["product"].run


if __name__ == "__main__":
    main()
