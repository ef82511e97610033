"""A kernel of 20 000 samples without its matrix: λ_max, trace and a regression in 2 GB.

Two-layer ReLU, width 1024, 784 inputs, float32, first layer trained: 0.8 million parameters, and a
kernel that would take 1.6 GB, with as much again for each factor of it.
"""

import argparse
import os
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import timing

from ntkflow.kernels.matrix_free import lanczos, lanczos_extremes
from ntkflow.kernels.operators import ntk_operator
from ntkflow.prediction.conjugate_gradients import kernel_regression
from ntkflow.systems.two_layer_relu import TwoLayerReLU

FEATURES, WIDTH, LATENT, TEST = 784, 1024, 20, 1000
STEPS, RIDGE, TOLERANCE = 15, 1e-2, 1e-3
LIMIT = 2e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print the section of RESULTS.md")
    parser.add_argument("--samples", type=int, default=20_000, help="n (default: 20000)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    worker = timing.Worker(JAX_PLATFORMS="cpu")  # whose memory is that of the problem alone
    rows, peak = worker(solve, options.samples)
    worker.close()
    remark = (
        f"{options.samples} samples near a manifold of {LATENT} dimensions, labels of a teacher "
        f"on them; ridge {RIDGE}, residual to reach {TOLERANCE}. Errors are bounds that hold with "
        "probability 99% over the probe. The regression: 4 √n landmarks for the preconditioner; "
        "test error: mean square on other samples, of a variance of 1. Seconds contain "
        f"compilation, but for the product. Peak memory of the process: {peak / 1e9:.2f} GB, "
        f"{'within' if peak <= LIMIT else 'ABOVE'} the {LIMIT / 1e9:.0f} GB it was given."
    )
    columns = [f"{options.samples} samples", "result", "products", "seconds"]
    table = timing.Table("A kernel without its matrix", columns, rows, remark)
    timing.report(__file__, [table], load, options.markdown)
    if peak > LIMIT:
        raise SystemExit(f"Peak memory {peak / 1e9:.2f} GB is above {LIMIT / 1e9:.0f} GB.")


def solve(n):
    """The rows of the table, and the peak memory of this process in bytes."""
    x, y = data(n + TEST)
    x, x_test, y, y_test = x[:n], x[n:], y[:n], y[n:]
    network = TwoLayerReLU(WIDTH, param_dtype=jnp.float32)
    variables = network.init(jax.random.key(0), x[:2])
    operator = ntk_operator(network.apply, variables, x, max_bytes=2**27)
    initial = jax.jit(network.apply)
    rows = []

    def row(name, compute, describe, products):
        begin = time.perf_counter()
        result = jax.block_until_ready(compute())
        seconds = time.perf_counter() - begin
        rows.append([name, describe(result), str(products(result)), f"{seconds:.1f}"])
        return result

    jax.block_until_ready(operator @ y)  # compiled
    row("one product Θv", lambda: operator @ y, lambda v: "", lambda v: 1)
    row("trace", lambda: operator.diagonal().sum(), lambda v: f"{v:.1f}, exact", lambda v: 0)
    row(
        "λ_max, λ_min",
        lambda: lanczos_extremes(lanczos(jax.random.key(0), operator, steps=STEPS, probes=1)),
        describe_extremes,
        lambda extremes: STEPS,
    )
    regression = row(
        "regression",
        lambda: kernel_regression(
            operator, y - initial(variables, x), ridge=RIDGE, tolerance=TOLERANCE
        ),
        lambda r: f"residual {r.residual:.1e}, {'' if r.converged else 'NOT '}converged",
        lambda r: r.steps + 1,
    )
    error = lambda f: float(jnp.mean(jnp.square(f - y_test)))  # noqa: E731
    row(
        "prediction",
        lambda: initial(variables, x_test) + operator.cross(x_test, regression.coefficients),
        lambda f: f"test error {error(f):.3f}",
        lambda f: 1,
    )
    return rows, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def describe_extremes(extremes):
    low, high = extremes.smallest, extremes.largest
    smallest = (
        f"λ_min {low:.2e} ± {extremes.smallest_error:.0e}"
        if extremes.smallest_resolved
        else f"λ_min not resolved, ≤ {extremes.smallest_error:.1e}"
    )
    return f"λ_max {high:.2f} ± {extremes.largest_error:.0e}, {smallest}"


def data(n):
    """Unit inputs near a manifold, and labels of mean 0 and variance 1."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(n, LATENT)).astype(np.float32)
    lift = generator.normal(size=(LATENT, FEATURES)).astype(np.float32)
    x = np.maximum(latent @ lift, 0)
    x += 0.05 * np.sqrt(LATENT) * generator.standard_normal(x.shape, dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    teacher = generator.normal(size=(LATENT, 10)).astype(np.float32)
    y = np.tanh(latent @ teacher / np.sqrt(LATENT)).sum(axis=1)
    y = (y - y.mean()) / y.std()
    return jnp.asarray(x), jnp.asarray(y.astype(np.float32))


if __name__ == "__main__":
    main()
