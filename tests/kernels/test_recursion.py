import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled
from scipy.integrate import quad

from ntkflow.kernels.recursion import fully_connected, fully_connected_relu


def points(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def by_integration(x1, x2, depth, w_std, b_std):
    """The recursion for one pair, its expectations as integrals over the angle."""
    w, b, d = w_std**2, b_std**2, len(x1)
    k11, k12, k22 = (w * u @ v / d + b for u, v in ((x1, x1), (x1, x2), (x2, x2)))
    ntk = k12
    for _ in range(depth):
        scale = np.sqrt(k11 * k22)
        theta = np.arccos(k12 / scale)
        low, high = theta - np.pi / 2, np.pi / 2
        value = scale * quad(lambda a: np.cos(a) * np.cos(a - theta), low, high)[0] / np.pi
        slope = (high - low) / (2 * np.pi)
        k11, k12, k22 = (w * v + b for v in (k11 / 2, value, k22 / 2))
        ntk = k12 + w * slope * ntk
    return k12, ntk


@pytest.mark.quick
@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_equals_the_recursion_by_numerical_integration(depth):
    x1, x2 = points(3, 4), points(2, 4, seed=1)
    kernels = fully_connected_relu(x1, x2, depth, 1.3, 0.4)
    expected = [[by_integration(u, v, depth, 1.3, 0.4) for v in x2] for u in x1]
    np.testing.assert_allclose(np.stack(kernels, -1), expected, rtol=1e-10)


def test_one_layer_on_the_sphere():
    """w_std = √2, no bias, ‖x‖² = d: nngp = 2 J₁(θ)/π, ntk = nngp + 2 cos θ (1 − θ/π)."""
    theta = np.linspace(0.1, 3.0, 7)
    x1 = np.sqrt(2) * np.array([[1.0, 0.0]])
    x2 = np.sqrt(2) * np.stack([np.cos(theta), np.sin(theta)], axis=1)
    nngp, ntk = fully_connected_relu(x1, x2, 1)
    first = 2 * (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / np.pi
    np.testing.assert_allclose(nngp[0], first, rtol=1e-14, atol=1e-15)
    second = first + 2 * np.cos(theta) * (1 - theta / np.pi)
    np.testing.assert_allclose(ntk[0], second, rtol=1e-14, atol=1e-15)


def test_critical_weights_keep_the_diagonal(dtype):
    x = jnp.asarray(points(6, 5), dtype)
    power = 2 * jnp.sum(x * x, axis=1) / 5
    nngp, ntk = fully_connected_relu(x, None, 30)
    rtol = 60 * np.finfo(dtype).eps
    np.testing.assert_allclose(jnp.diag(nngp), power, rtol=rtol)
    np.testing.assert_allclose(jnp.diag(ntk), 31 * power, rtol=rtol)


def network(params, x, activation, w_std, b_std):
    for i, (w, b) in enumerate(params):
        x = w_std / len(w) ** 0.5 * x @ w + b_std * b[None, :]
        x = activation(x) if i < len(params) - 1 else x
    return x[:, 0]


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh], ids=["relu", "tanh"])
def test_wide_networks_have_these_kernels(activation):
    """Means over 48 networks of width 256, whose bias of order depth/width is well below the
    standard error."""
    x, sizes = jnp.asarray(points(3, 4), "float32"), (4, 256, 256, 1)

    def one(key):
        keys = jax.random.split(key, 6)
        params = [
            (jax.random.normal(k, (i, o), "float32"), jax.random.normal(l, (o,), "float32"))
            for k, l, i, o in zip(keys[:3], keys[3:], sizes[:-1], sizes[1:], strict=True)
        ]
        _, pullback = jax.vjp(lambda p: network(p, x, activation, 1.2, 0.3), params)
        rows = jax.vmap(pullback)(jnp.eye(3, dtype="float32"))
        flat = jnp.concatenate([r.reshape(3, -1) for r in jax.tree.leaves(rows)], axis=1)
        # The last hidden layer gives the output's covariance, given the layers below.
        hidden = rows[0][-1][0].reshape(3, -1)
        return hidden @ hidden.T + 0.3**2, flat @ flat.T

    samples = compiled(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(0), 48))
    samples = [np.asarray(sample) for sample in samples]
    limit = compiled(lambda x: fully_connected(x, None, 2, 1.2, 0.3, activation))(x.astype(float))
    for sample, expected in zip(samples, limit, strict=True):
        deviation = np.abs(sample.mean(0) - expected)
        assert (deviation < 4 * sample.std(0, ddof=1) / np.sqrt(48)).all()
        assert (sample.std(0) / np.sqrt(48) < 0.03 * np.max(expected)).all()


@pytest.mark.quick
def test_one_set_is_exactly_symmetric_and_equals_two(dtype):
    x = jnp.asarray(points(20, 7), dtype)
    one, two = (fully_connected_relu(x, other, 3, 1.5, 0.1) for other in (None, x))
    eps = float(np.finfo(dtype).eps)
    for k, other, tolerance in zip(one, two, (100 * eps, 4 * eps**0.5), strict=True):
        assert k.dtype == dtype
        np.testing.assert_array_equal(k, k.T)
        np.testing.assert_allclose(k, other, atol=tolerance * float(jnp.max(k)))
        assert np.linalg.eigvalsh(np.asarray(k, float))[0] > 0


def test_float32_follows_float64():
    x1, x2 = points(30, 10), points(20, 10, seed=1)

    @compiled
    def compute(x1, x2):
        return fully_connected_relu(x1, x2, 4, 1.4, 0.2)

    double, single = compute(x1, x2), compute(*(x.astype("float32") for x in (x1, x2)))
    for a, b in zip(double, single, strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-6)


def test_derivatives_on_the_diagonal_and_at_zero_rows():
    """nngp(x, x) = 2‖x‖²/d and ntk(x, x) = (depth + 1) nngp for w_std = √2 and no bias."""
    x = jnp.asarray(points(4, 3)).at[2].set(0.0)

    @compiled
    def compute(x):
        traces = lambda x: jnp.stack([jnp.trace(k) for k in fully_connected_relu(x, None, 3)])  # noqa: E731
        sums = lambda x: sum(k.sum() for k in fully_connected_relu(x, x, 3))  # noqa: E731
        return jax.jacrev(traces)(x), fully_connected_relu(x, None, 3), jax.grad(sums)(x)

    gradients, kernels, everything = compute(x)
    for gradient, factor in zip(gradients, (1, 4), strict=True):
        np.testing.assert_allclose(gradient, factor * 4 * x / 3, rtol=1e-13)
    assert not np.any([k[2] for k in kernels])
    assert np.isfinite(everything).all()


def test_derivatives_match_differences():
    x, step = points(3, 4), 1e-6

    def total(x, w_std, b_std):
        return sum((k * jnp.arange(9.0).reshape(3, 3)).sum() for k in relu(x, w_std, b_std))

    def relu(x, w_std, b_std):
        return fully_connected_relu(x, None, 2, w_std, b_std)

    value = compiled(total)
    gradients = compiled(jax.grad(total, (0, 1, 2)))(x, 1.2, 0.3)
    along = [np.sign(points(3, 4, seed=3)), 1.0, 1.0]
    for i, direction in enumerate(along):
        ends = []
        for sign in (1, -1):
            arguments = [x, 1.2, 0.3]
            arguments[i] = arguments[i] + sign * step * direction
            ends.append(value(*arguments))
        expected = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(gradients[i] * direction), expected, rtol=1e-7)


def test_activation_that_closes_over_a_traced_value():
    """The slope is unknown while the rule is chosen."""

    def kernel(slope):
        return fully_connected(
            points(2, 3), None, 1, 1.0, 0.0, lambda x: jnp.where(x > 0, x, slope * x)
        ).ntk

    expected = fully_connected(points(2, 3), None, 1, 1.0, 0.0, lambda x: jax.nn.leaky_relu(x, 0.3))
    np.testing.assert_allclose(compiled(kernel)(0.3), expected.ntk, rtol=1e-11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3), None, 1), r"x1 has shape \(3,\); expected \(samples, features\)"),
        ((np.ones((2, 3)), np.ones((2, 4)), 1), r"x2 \(2, 4\); expected as many features"),
        ((np.ones((0, 3)), None, 1), r"x1 has shape \(0, 3\); expected at least one sample"),
        ((np.full((2, 3), np.nan), None, 1), r"x1 holds NaN"),
        ((np.ones((2, 3)), np.full((2, 3), np.inf), 1), r"x2 holds NaN"),
        ((np.ones((2, 3)), None, -1), r"depth is -1; expected a whole number"),
        ((np.ones((2, 3)), None, 1.5), r"depth is 1.5; expected a whole number"),
        ((np.ones((2, 3)), None, 1, np.ones(2)), r"w_std has shape \(2,\); expected one number"),
        ((np.ones((2, 3)), None, 1, 1.0, np.nan), r"b_std holds NaN"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        fully_connected_relu(*arguments)


@pytest.mark.parametrize("activation", [jax.nn.elu, jnp.tanh])
def test_is_exactly_symmetric_whatever_the_rule(activation):
    x = points(5, 3).astype("float32")
    for kernel in fully_connected(x, None, 2, 1.5, 0.1, activation):
        np.testing.assert_array_equal(kernel, kernel.T)
