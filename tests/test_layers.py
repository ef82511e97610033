import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, compiled, samples

from ntkflow.layers import Conv, Dense, rademacher, sphere


def test_dense_is_the_formula(dtype):
    layer = Dense(5, w_std=1.5, b_std=0.3, param_dtype=dtype)
    x = samples(0, 4, 3, dtype=dtype)
    variables = compiled(layer.init)(jax.random.key(1), x)
    kernel, bias = (np.asarray(variables["params"][name]) for name in ("kernel", "bias"))
    y = layer.apply(variables, x)
    assert y.dtype == dtype
    assert_close(y, 1.5 / np.sqrt(3) * np.asarray(x) @ kernel + 0.3 * bias)


def test_dense_has_unit_normal_parameters_and_no_bias_by_default():
    variables = compiled(Dense(1000).init)(jax.random.key(0), jnp.ones((1, 100)))
    assert set(variables["params"]) == {"kernel"}
    kernel = np.asarray(variables["params"]["kernel"])
    # 1e5 normals: the mean has standard error 1/√1e5, the variance √(2/1e5).
    assert abs(kernel.mean()) < 4 / np.sqrt(1e5)
    assert abs(kernel.var() - 1) < 4 * np.sqrt(2 / 1e5)


def test_dense_takes_any_leading_axes():
    layer = Dense(5, b_std=1.0)
    x = samples(0, 2, 6, 3)
    variables = compiled(layer.init)(jax.random.key(1), x)
    assert_close(layer.apply(variables, x)[1], layer.apply(variables, x[1]))


@pytest.mark.parametrize("features", [0, -3, 2.5])
def test_dense_refuses_a_width_that_is_none(features):
    with pytest.raises(ValueError, match=r"features is .* greater than 0"):
        Dense(features).init(jax.random.key(0), jnp.ones((1, 2)))


def test_rademacher_is_floating_point_fair_and_differentiable(dtype):
    signs = rademacher(jax.random.key(0), (10_000,), dtype)
    assert signs.dtype == dtype
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / 100
    jax.grad(lambda a: a.sum())(signs)


@pytest.mark.parametrize("axis", [0, 1])
def test_sphere_has_the_radius_and_no_direction(axis):
    kernel = sphere(2.0, axis)(jax.random.key(0), (30, 40))
    assert_close(jnp.linalg.norm(kernel, axis=axis), np.full(kernel.shape[1 - axis], 2.0))
    # Entries of a uniform point in R^d have mean 0 and variance r²/d.
    assert abs(float(kernel.mean())) < 4 * 2 / np.sqrt(kernel.shape[axis] * kernel.size)


def test_sphere_refuses_a_radius_that_is_none():
    with pytest.raises(ValueError, match="radius is 0"):
        sphere(0)


@pytest.mark.parametrize("options", [{}, {"padding": "CIRCULAR", "strides": 2}])
def test_conv_is_the_one_of_flax_with_scaled_parameters(options, dtype):
    x = samples(0, 2, 6, 5, 3, dtype=dtype)
    layer = Conv(4, (3, 2), w_std=1.5, b_std=0.2, param_dtype=dtype, **options)
    flax = nn.Conv(4, (3, 2), param_dtype=dtype, **options)

    @compiled
    def both(x):
        params = layer.init(jax.random.key(1), x)
        scaled = {
            "kernel": 1.5 / 18**0.5 * params["params"]["kernel"],
            "bias": 0.2 * params["params"]["bias"],
        }
        return layer.apply(params, x), flax.apply({"params": scaled}, x)

    y, plain = both(x)
    assert y.dtype == x.dtype
    assert_close(y, plain)


def test_conv_counts_the_channels_that_a_filter_sees():
    x = jnp.ones((1, 4, 6))
    layer = Conv(6, 3, feature_group_count=2, kernel_init=nn.initializers.ones, padding="VALID")
    y = layer.apply(layer.init(jax.random.key(0), x), x)
    assert_close(y, jnp.full((1, 2, 6), 3.0))  # 9 entries, divided by √9


def test_conv_refuses_the_unscaled_bias():
    with pytest.raises(ValueError, match="b_std > 0 instead"):
        Conv(4, (3,), use_bias=True).init(jax.random.key(0), jnp.ones((1, 4, 2)))
