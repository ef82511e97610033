"""Averages over initializations against loops, and against kernels that are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close, compiled, samples

from ntkflow.kernels.blocks import in_blocks
from ntkflow.kernels.empirical import empirical_nngp, empirical_ntk
from ntkflow.kernels.monte_carlo import monte_carlo_kernel
from ntkflow.kernels.recursion import fully_connected_relu
from ntkflow.layers import Dense
from ntkflow.nnx import from_nnx


class Network(nn.Module):
    """Fully connected in the NTK parameterization, ReLU, w_std = √2, no bias."""

    depth: int = 1
    width: int = 8
    outputs: int | None = 2
    dtype: str = "float64"

    @nn.compact
    def __call__(self, x):
        std = {"w_std": 2**0.5, "param_dtype": self.dtype}
        for i in range(self.depth):
            x = nn.relu(Dense(self.width, name=f"hidden{i}", **std)(x))
        y = Dense(self.outputs or 1, name="output", **std)(x)
        return y if self.outputs else y[:, 0]


class Dropout(nn.Module):
    rate: float = 0.5

    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(self.rate, deterministic=False)(x)
        return Dense(1, param_dtype="float64")(x)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("dtype", "outputs", "other"), [("float32", None, False), ("float64", 3, True)]
)
def test_equals_a_loop(dtype, outputs, other):
    """A pair that draws one of six known networks: their kernels, averaged by NumPy."""
    module = Network(2, 6, outputs, dtype)
    x1, x2 = samples(0, 4, 3, dtype=dtype), samples(1, 2, 3, dtype=dtype) if other else None
    shapes = jax.eval_shape(module.init, jax.random.key(0), x1)
    stacked = jax.tree.map(lambda leaf: samples(5, 6, *leaf.shape, dtype=dtype), shapes)

    def draw(key, x):
        del x
        return jax.tree.map(lambda leaf: leaf[jax.random.bits(key) % 6], stacked)

    trained = lambda path: "hidden0" not in path  # noqa: E731
    key, count = jax.random.key(1), 9
    estimate = monte_carlo_kernel((draw, module.apply), count, trainable=trained)
    estimate = compiled(estimate)(key, x1, x2)

    def kernels(params):
        theta = empirical_ntk(module.apply, outputs="trace", trainable=trained)(params, x1, x2)
        covariance = empirical_nngp(module.apply, outputs="trace")(params, x1, x2)
        return theta / (outputs or 1), covariance / (outputs or 1)

    ntks, nngps = (np.asarray(k) for k in compiled(jax.vmap(kernels))(stacked))
    pick = lambda key: jax.random.bits(jax.random.split(key)[0]) % 6  # noqa: E731
    drawn = np.asarray(compiled(jax.vmap(pick))(jax.random.split(key, count)))
    for field, values in (("ntk", ntks[drawn]), ("nngp", nngps[drawn])):
        mean, error = getattr(estimate.mean, field), getattr(estimate.standard_error, field)
        assert mean.dtype == error.dtype == dtype
        assert_close(mean, values.mean(0))
        assert_close(error, values.std(0, ddof=1) / np.sqrt(count), scale=np.abs(values).max())
        if not other:
            np.testing.assert_array_equal(mean, mean.T)


def test_a_linear_model_has_an_exact_ntk():
    x = samples(0, 5, 3)
    module = Dense(4, w_std=1.5, param_dtype="float64")
    mean, error = compiled(monte_carlo_kernel(module, 400))(jax.random.key(0), x)
    gram = 1.5**2 * x @ x.T / 3
    assert_close(mean.ntk, gram)
    assert_close(error.ntk, np.zeros((5, 5)), scale=1.0)
    assert (abs(mean.nngp - gram) < 4 * error.nngp).all()
    # var(K) = (gram² + gram_ii gram_jj) / o for Gaussian outputs
    diagonal = np.diag(gram)
    exact = np.sqrt((gram**2 + np.outer(diagonal, diagonal)) / 4 / 400)
    np.testing.assert_allclose(error.nngp, exact, rtol=0.25)


def test_standard_errors_cover_the_truth():
    """One hidden layer is unbiased at any width: the mean is the kernel of infinite width."""
    x1, x2 = samples(0, 3, 4), samples(1, 2, 4)
    exact = fully_connected_relu(x1, x2, 1)
    kernel = monte_carlo_kernel(Network(1, 8), 200)
    keys = jax.random.split(jax.random.key(2), 60)
    mean, error = compiled(jax.vmap(lambda key: kernel(key, x1, x2)))(keys)
    for field in ("nngp", "ntk"):
        value, truth, deviation = (np.asarray(getattr(k, field)) for k in (mean, exact, error))
        scores = (value - truth) / deviation
        # 60 runs: within 5 standard errors of the 0.954 of a Gaussian, and unit variance
        assert np.mean(abs(scores) < 2) > 0.82
        assert 0.7 < np.std(scores) < 1.4
        assert (abs(scores.mean(0)) < 4 / np.sqrt(60)).all()


def test_deep_and_wide_meets_infinite_width():
    x = samples(0, 3, 4)
    exact = fully_connected_relu(x, None, 2)
    mean, error = compiled(monte_carlo_kernel(Network(2, 128, 16), 60))(jax.random.key(0), x)
    for field in ("nngp", "ntk"):
        estimate, spread = getattr(mean, field), getattr(error, field)
        assert (abs(estimate - getattr(exact, field)) < 4 * spread).all()
        assert (spread < 0.1 * estimate.max()).all()


def test_large_means_do_not_cancel():
    """f = 1000 + w/10: a difference of mean squares, 1e12 in float32, is noise."""
    pair = (
        lambda key, x: {"w": jax.random.normal(key, (), "float32")},
        lambda params, x: 1000 + 0.1 * params["w"] * x,
    )
    x = jnp.ones(1, "float32")
    _, error = compiled(monte_carlo_kernel(pair, 100))(jax.random.key(0), x)
    np.testing.assert_allclose(error.nngp, 2 * 1000 * 0.1 / 10, rtol=0.25)


def test_each_sample_has_a_mask_of_its_own():
    """Dropout at rate r: K(x, y) = x·y/d, and K(x, x)/(1 − r) where the mask is the same."""
    x = 1 + abs(samples(0, 3, 40))
    gram = np.asarray(x @ x.T) / 40
    kernel = compiled(monte_carlo_kernel(Dropout(0.5), 400))
    expected = gram + np.diag(np.diag(gram))
    for other, truth in ((None, expected), (x, gram)):
        mean, error = kernel(jax.random.key(0), x, other)
        for field in ("nngp", "ntk"):
            scores = (getattr(mean, field) - truth) / getattr(error, field)
            assert abs(scores).max() < 4
    assert (error.ntk > 0).all()


def test_composes_with_blocks():
    x, key = samples(0, 7, 3), jax.random.key(0)
    kernel = monte_carlo_kernel(Dense(2, param_dtype="float64"), 3)
    direct = kernel(key, x, x[:4])
    jax.tree.map(assert_close, in_blocks(kernel, devices=2)(key, x, x[:4]), direct)
    jax.tree.map(assert_close, kernel(jax.random.PRNGKey(0), x, x[:4]), direct)


def test_an_nnx_model_as_a_pair():
    def model(key):
        return nnx.Linear(3, 2, rngs=nnx.Rngs(key), param_dtype=jnp.float64, use_bias=False)

    apply, _ = from_nnx(model(0))
    kernel = monte_carlo_kernel((lambda key, x: from_nnx(model(key))[1], apply), 5)
    x = samples(0, 4, 3)
    assert_close(kernel(jax.random.key(0), x).mean.ntk, x @ x.T)


def test_errors_at_the_door():
    x, key = samples(0, 4, 3), jax.random.key(0)
    with pytest.raises(ValueError, match="samples is 1"):
        monte_carlo_kernel(Network(), 1)
    with pytest.raises(ValueError, match=r"samples is 2\.5"):
        monte_carlo_kernel(Network(), 2.5)
    for module in (Network, Network().apply, (Network().init,), (1, 2)):
        with pytest.raises(ValueError, match="expected a Flax Linen module"):
            monte_carlo_kernel(module, 3)
    with pytest.raises(ValueError, match="from_nnx"):
        monte_carlo_kernel(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), 3)
    kernel = monte_carlo_kernel(Network(), 3)
    for no_key in (None, x, jax.random.split(key)):
        with pytest.raises(ValueError, match="expected one PRNG key"):
            kernel(no_key, x)
    with pytest.raises(ValueError, match="x2 holds NaN"):
        kernel(key, x, x.at[0, 0].set(jnp.nan))
    with pytest.raises(ValueError, match="no samples"):
        kernel(key, x[:0])
    with pytest.raises(ValueError, match="matches none"):
        monte_carlo_kernel(Network(), 3, trainable=lambda path: False)(key, x)
