"""Kernels against a peer: the empirical NTK against torch.func, infinite width against NumPy.

Empirical: 64 samples, float32, the plain Jacobian contraction on both sides. Infinite width: the
fully connected ReLU network of depth 3 on 1000 samples, float32 and float64, against the same
recursion written out in NumPy.
"""

import functools
import importlib.util
import math
import os
import resource

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import timing

from ntkflow.kernels import empirical_ntk
from ntkflow.kernels.recursion import fully_connected_relu
from ntkflow.layers import Dense
from ntkflow.systems.two_layer_relu import TwoLayerReLU, gram

SAMPLES, FEATURES, OUTPUTS, WIDTH, WIDTH_TWO_LAYERS = 64, 64, 10, 512, 2000
SAMPLES_INFINITE, DEPTH = 1000, 3


def main() -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    tables = [empirical(options.rounds), infinite(options.rounds)]
    timing.report(__file__, tables, load, options.markdown)


# The empirical kernel.


class Network(nn.Module):
    """Two hidden layers of `WIDTH`, `OUTPUTS` outputs."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(Dense(WIDTH, w_std=2**0.5)(x))
        return Dense(OUTPUTS)(x)


def empirical(rounds):
    kinds = ["ntkflow", "gram", "torch.func"]
    if not importlib.util.find_spec("torch"):
        kinds.remove("torch.func")
    cases = {
        "MLP": ("ntkflow", "torch.func"),
        "two layers": ("ntkflow", "gram", "torch.func"),
    }
    rows = []
    for case, contenders in cases.items():
        # One process each: its peak of memory is that of one contender.
        workers = {
            kind: timing.Worker() if kind == "torch.func" else timing.Worker(JAX_PLATFORMS="cpu")
            for kind in contenders
            if kind in kinds
        }
        inputs = workers["ntkflow"](empirical_inputs, case)
        for worker in workers.values():
            worker(prepare, case, inputs)
        before = {kind: worker(peak_memory) for kind, worker in workers.items()}
        clocks = {
            kind: functools.partial(worker, clock_empirical, case, kind)
            for kind, worker in workers.items()
        }
        times = timing.race(clocks, rounds)
        after = {kind: worker(peak_memory) for kind, worker in workers.items()}
        thetas = {kind: worker(theta_of, case, kind) for kind, worker in workers.items()}
        _agree(f"kernels of the {case}", thetas, 1e-3)
        for worker in workers.values():
            worker.close()

        outputs = OUTPUTS if case == "MLP" else 1
        size = sum(array.size for array in inputs["trained"].values())
        jacobian = SAMPLES * outputs * size * 4
        reference = times["ntkflow"]
        for kind, time in times.items():
            rows.append(
                [
                    f"{case}: {kind}",
                    f"{1e3 * time.run:.1f}",
                    timing.ratio(time.run, reference.run),
                    f"{time.start:.2f}",
                    "-" if kind == "gram" else f"{jacobian / 2**20:.0f} MiB",
                    f"{(after[kind] - before[kind]) / 2**20:.0f} MiB",
                ]
            )
    remark = (
        f"MLP: {FEATURES} features, two hidden layers of {WIDTH}, {OUTPUTS} outputs; two layers: "
        f"TwoLayerReLU({WIDTH_TWO_LAYERS}), {FEATURES} features, the first layer trained. "
        f"{SAMPLES} samples, one set of them (x2 = x1), whose Jacobian is computed once. ntkflow: "
        'empirical_ntk(method="jacobian"); gram: the closed form of the system, without a '
        "Jacobian. Jacobian: its size by counting; growth: what the peak memory of the process "
        "grew by, compilation included."
    )
    if "torch.func" not in kinds:
        remark += " PyTorch is left out: torch cannot be imported (pip install torch==2.13.0)."
    columns = ["64 samples", "run, ms", "ratio", "start, s", "Jacobian", "growth"]
    return timing.Table("Empirical NTK", columns, rows, remark)


def empirical_inputs(case):
    """Weights and samples as NumPy arrays, equal for all contenders."""
    module = Network() if case == "MLP" else TwoLayerReLU(WIDTH_TWO_LAYERS)
    x = np.random.default_rng(0).normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    variables = module.init(jax.random.key(0), x)
    trained = {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(variables["params"])[0]
    }
    return {"x": x, "variables": jax.tree.map(np.asarray, variables), "trained": trained}


_prepared = {}


def prepare(case, inputs):
    _prepared[case] = inputs
    jax.block_until_ready(jnp.zeros(1) + 1)  # the backend's own memory is not the kernel's
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(2)
        torch.set_flush_denormal(True)


@functools.cache
def contender(case, kind):
    """A function of nothing that computes the kernel."""
    inputs = _prepared[case]
    if kind == "torch.func":
        return torch_kernel(case, inputs)
    variables, x = jax.tree.map(jnp.asarray, (inputs["variables"], inputs["x"]))
    module = Network() if case == "MLP" else TwoLayerReLU(WIDTH_TWO_LAYERS)
    kernel = gram if kind == "gram" else empirical_ntk(module.apply, method="jacobian")
    return functools.partial(jax.jit(kernel), variables, x)


def torch_kernel(case, inputs):
    """The recipe of torch.func's users: the Jacobian of one sample, vmapped, and an einsum."""
    import torch
    from torch.func import functional_call, jacrev, vmap

    class Scaled(torch.nn.Module):
        def __init__(self, kernel, w_std):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.from_numpy(kernel.T.copy()))
            self.scale = w_std / math.sqrt(kernel.shape[0])

        def forward(self, x):
            return self.scale * torch.nn.functional.linear(x, self.weight)

    class TwoLayers(torch.nn.Module):
        def __init__(self, kernel, output):
            super().__init__()
            self.first = Scaled(kernel, math.sqrt(kernel.shape[0]))
            self.register_buffer("output", torch.from_numpy(output.copy()))

        def forward(self, x):
            return (torch.relu(self.first(x)) @ self.output / math.sqrt(len(self.output)))[:, None]

    if case == "MLP":
        first, second, last = inputs["trained"].values()
        hidden = (Scaled(first, 2**0.5), Scaled(second, 2**0.5))
        relu = torch.nn.ReLU()
        model = torch.nn.Sequential(hidden[0], relu, hidden[1], relu, Scaled(last, 1.0))
    else:
        (first,) = inputs["trained"].values()
        model = TwoLayers(first, inputs["variables"]["fixed"]["output"])
    params = {name: p.detach() for name, p in model.named_parameters()}
    x = torch.from_numpy(inputs["x"])

    def one_sample(params, sample):
        return functional_call(model, params, (sample[None],))[0]

    def kernel():
        jacobians = vmap(jacrev(one_sample), in_dims=(None, 0))(params, x)
        flat = [jacobian.flatten(2) for jacobian in jacobians.values()]
        return sum(torch.einsum("iap,jbp->ijab", j, j) for j in flat)

    return kernel


def clock_empirical(case, kind):
    return timing.seconds(contender(case, kind))


def theta_of(case, kind):
    return np.asarray(contender(case, kind)()).reshape(SAMPLES, SAMPLES, -1)


def peak_memory():
    """Of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# Infinite width.


def infinite(rounds):
    workers = {
        "ntkflow": timing.Worker(JAX_PLATFORMS="cpu", JAX_ENABLE_X64="1"),
        "NumPy": timing.Worker(),
    }
    rows = []
    for dtype in ("float32", "float64"):
        clocks = {
            kind: functools.partial(worker, clock_infinite, kind, dtype)
            for kind, worker in workers.items()
        }
        times = timing.race(clocks, 2 * rounds)
        thetas = {kind: worker(infinite_ntk, kind, dtype) for kind, worker in workers.items()}
        _agree(
            f"kernels of infinite width in {dtype}", thetas, 2e-3 if dtype == "float32" else 1e-6
        )
        for kind, time in times.items():
            rows.append(
                [
                    f"{dtype}: {kind}",
                    f"{1e3 * time.run:.1f}",
                    timing.ratio(time.run, times["ntkflow"].run),
                    f"{time.start:.2f}",
                    f"{1e9 * time.run / SAMPLES_INFINITE**2:.1f}",
                ]
            )
    for worker in workers.values():
        worker.close()
    remark = "NNGP and NTK of all pairs of 1000 samples of 50 features, depth 3; ns per pair."
    columns = ["1000 samples", "run, ms", "ratio", "start, s", "ns per pair"]
    return timing.Table("Infinite width, fully connected ReLU", columns, rows, remark)


@functools.cache
def samples(dtype):
    x = np.random.default_rng(0).normal(size=(SAMPLES_INFINITE, 50)).astype(dtype)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def numpy_kernels(x):
    """The recursion as a reader of the papers would write it in NumPy."""
    norms = np.sum(x * x, axis=1) * (2 / x.shape[1])
    nngp = x @ x.T * (2 / x.shape[1])
    ntk = nngp.copy()
    for _ in range(DEPTH):
        scale = np.sqrt(np.outer(norms, norms))
        cosine = np.clip(nngp / scale, -1, 1)
        away = np.pi - np.arccos(cosine)
        nngp = scale / np.pi * (np.sqrt(1 - cosine * cosine) + away * cosine)
        ntk = nngp + ntk * away / np.pi
    return nngp, ntk


@functools.cache
def infinite_contender(kind, dtype):
    if kind == "NumPy":
        return functools.partial(numpy_kernels, samples(dtype))
    x = jnp.asarray(samples(dtype))
    kernel = jax.jit(lambda x: fully_connected_relu(x, None, DEPTH))
    return functools.partial(kernel, x)


def clock_infinite(kind, dtype):
    return timing.seconds(infinite_contender(kind, dtype))


def infinite_ntk(kind, dtype):
    return np.asarray(infinite_contender(kind, dtype)()[1])


def _agree(what, arrays, tolerance):
    reference = next(iter(arrays.values()))
    apart = max(np.max(np.abs(a - reference)) for a in arrays.values()) / np.max(np.abs(reference))
    if not apart < tolerance:
        raise SystemExit(f"The {what} differ by {apart:.1e} of their largest entry.")


if __name__ == "__main__":
    main()
