"""Deep networks: layers written out against one loop over them, and recursions against NumPy.

A ResNet of width 256 at several depths, 64 samples, float32, against the same network as one
`lax.scan` over its stacked weights; and the recursion of its K^(H) for 50 samples in float64
against the same recursion in NumPy, whose Gaussian expectations take 40 × 40 Gauss–Hermite nodes.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import timing

from ntkflow.kernels import ntk_by_group
from ntkflow.systems import deep

WIDTH, SAMPLES, FEATURES, RESIDUAL = 256, 64, 32, 0.5
DEPTHS, LIMIT_DEPTHS, LIMIT_SAMPLES = (10, 50, 200), (10, 100), 50


def main() -> None:
    options = timing.arguments(__doc__)
    load = os.getloadavg()[0]
    one_device = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    single, double = timing.Worker(**one_device), timing.Worker(**one_device, JAX_ENABLE_X64="1")
    tables = [single(networks, options.rounds), double(limits, options.rounds)]
    single.close()
    double.close()
    timing.report(__file__, tables, load, options.markdown)


# The network.


def one_loop(module, variables, x):
    """`deep.ResNet.apply`, as one loop over all layers but the first."""
    params, m = variables["params"], module.width
    rate = module.residual / (module.depth * m**0.5)
    scale = (deep.normalization(module.activation) / m) ** 0.5

    def layer(h, w):
        return h + rate * module.activation(h @ w), None

    stacked = jnp.stack([params[f"layer_{h}"] for h in range(2, module.depth + 1)])
    h, _ = jax.lax.scan(layer, scale * module.activation(x @ params["layer_1"]), stacked)
    return h @ params["output"]


def networks(rounds):
    rows = []
    for depth in DEPTHS:
        module = deep.ResNet(WIDTH, depth, residual=RESIDUAL, param_dtype="float32")
        x = jax.random.normal(jax.random.key(0), (SAMPLES, FEATURES))
        variables = module.init(jax.random.key(1), x)
        tasks = {"loss and gradient": gradient, "layer Grams": grams}
        if depth > 50:  # of a longer loop ntk_by_group takes Jacobians
            del tasks["layer Grams"]
        for task, build in tasks.items():
            applies = {
                "written out": module.apply,
                "one loop": functools.partial(one_loop, module),
            }
            functions = {name: build(apply) for name, apply in applies.items()}
            clocks = {
                name: functools.partial(timing.seconds, functools.partial(f, variables, x))
                for name, f in functions.items()
            }
            times = timing.race(clocks, rounds)
            reference = times["written out"]
            rows += [
                [
                    f"{task}, H = {depth}, {name}",
                    f"{1e3 * own.run:.1f}",
                    timing.ratio(own.run, reference.run),
                    f"{own.start:.2f}",
                    timing.ratio(own.start, reference.start),
                ]
                for name, own in times.items()
            ]
    remark = (
        f"Width {WIDTH}, {SAMPLES} samples of {FEATURES} features, float32. Layer Grams are G^(h) "
        "of all H + 1 layers, by ntk_by_group."
    )
    columns = ["ResNet", "run, ms", "ratio", "start, s", "ratio"]
    return timing.Table("Layers written out, or one loop over them", columns, rows, remark)


def gradient(apply):
    return jax.jit(jax.value_and_grad(lambda params, x: jnp.sum(jnp.square(apply(params, x))) / 2))


def grams(apply):
    return ntk_by_group(apply)


# The recursion.


def limits(rounds):
    x = np.random.default_rng(0).normal(size=(LIMIT_SAMPLES, FEATURES))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    rows = []
    for depth in LIMIT_DEPTHS:
        functions = {
            "ntkflow": jax.jit(lambda x: deep.resnet_limit(x, depth, residual=RESIDUAL).last),
            "NumPy": lambda x: numpy_limit(x, depth),
        }
        clocks = {
            name: functools.partial(timing.seconds, functools.partial(f, x))
            for name, f in functions.items()
        }
        times = timing.race(clocks, rounds)
        error = np.abs(functions["NumPy"](x) / np.asarray(functions["ntkflow"](x)) - 1).max()
        rows += [
            [
                f"H = {depth}, {name}",
                f"{1e3 * own.run:.1f}",
                timing.ratio(own.run, times["ntkflow"].run),
                f"{own.start:.2f}",
                f"{error:.0e}",
            ]
            for name, own in times.items()
        ]
    remark = f"K^(H) of a ResNet, softplus, {LIMIT_SAMPLES} samples, float64; largest difference."
    columns = ["K^(H)", "run, ms", "ratio", "start, s", "differ by"]
    return timing.Table("The recursion of infinite width", columns, rows, remark)


def numpy_limit(x, depth):
    """Definition 3.2 of Du (2019), by a tensor rule of Gauss–Hermite nodes."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()

    def softplus(z):
        return np.logaddexp(z, 0)

    def slope(z):
        return 1 / (1 + np.exp(-z))

    def expectation(f, k):
        own = np.sqrt(np.diag(k))
        c = k / own[:, None]  # v = c z₁ + √(k₂₂ − c²) z₂
        rest = np.sqrt(np.maximum(np.diag(k)[None] - c**2, 0))
        total = np.zeros_like(k)
        for z, w in zip(nodes, weights, strict=True):
            inner = f(c[..., None] * z + rest[..., None] * nodes) @ weights
            total += w * f(own * z)[:, None] * inner
        return total

    def mean(k):
        return softplus(np.sqrt(np.diag(k))[:, None] * nodes) @ weights

    c_sigma, rate = 1 / (softplus(nodes) ** 2 @ weights), RESIDUAL / depth
    k = x @ x.T
    k, b = c_sigma * expectation(softplus, k), np.sqrt(c_sigma) * mean(k)
    for _ in range(2, depth):
        own = mean(k)
        cross = own[:, None] * b[None, :]
        k = k + rate * (cross + cross.T) + rate**2 * expectation(softplus, k)
        b = b + rate * own
    return rate**2 * k * expectation(slope, k)


if __name__ == "__main__":
    main()
