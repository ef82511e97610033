"""Laws of initializers: against closed forms, against samples, and what is refused."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ntkflow.kernels.infinite.laws import law_of_bits, laws
from ntkflow.layers import rademacher, sphere

KEY = jax.eval_shape(lambda: jax.random.key(0))
SHAPE = (100, 200)
init = nn.initializers


def law_of(draw, dtype="float64"):
    return laws(lambda key: draw(key, SHAPE, dtype), KEY)


def bernoulli(key, shape, dtype):
    return jax.random.bernoulli(key, jnp.asarray(0.7, dtype), shape)


def two_values(key, shape, dtype):
    return jnp.where(jax.random.uniform(key, shape, dtype) < 0.25, 3.0, -1.0)


def mean_of_cut_normal(key, shape, dtype):
    return 2 - 3 * jax.random.truncated_normal(key, -1.0, 2.0, shape, dtype)


_CUT = stats.truncnorm(-1, 2)

# Distributions with a closed form: mean, variance, whether normal.
EXACT = {
    "zeros": (init.zeros, 0, 0, True),
    "constant": (init.constant(0.5), 0.5, 0, True),
    "normal": (init.normal(1.0), 0, 1, True),
    "small normal": (init.normal(0.1), 0, 0.01, True),
    "uniform": (init.uniform(0.3), 0.15, 0.3**2 / 12, False),
    "lecun_normal": (init.lecun_normal(), 0, 1 / 100, False),
    "he_normal": (init.he_normal(), 0, 2 / 100, False),
    "glorot_normal": (init.glorot_normal(), 0, 2 / 300, False),
    "lecun_uniform": (init.lecun_uniform(), 0, 1 / 100, False),
    "he_uniform": (init.he_uniform(), 0, 2 / 100, False),
    "glorot_uniform": (init.glorot_uniform(), 0, 2 / 300, False),
    "fan_out": (init.variance_scaling(3.0, "fan_out", "normal"), 0, 3 / 200, True),
    "fan_geo_avg": (
        *(init.variance_scaling(3.0, "fan_geo_avg", "truncated_normal"), 0),
        *(3 / math.sqrt(100 * 200), False),
    ),
    "truncated_normal": (init.truncated_normal(1.0), 0, stats.truncnorm(-2, 2).var(), False),
    "cut": (mean_of_cut_normal, 2 - 3 * _CUT.mean(), 9 * _CUT.var(), False),
    "signs": (rademacher, 0, 1, False),
    "integer signs": (lambda key, shape, dtype: jax.random.rademacher(key, shape), 0, 1, False),
    "signs of normals": (lambda *args: jnp.sign(init.normal()(*args)), 0, 1, False),
    "bernoulli": (bernoulli, 0.7, 0.21, False),
    "two values": (two_values, 0, 3, False),
}


@pytest.mark.parametrize("name", EXACT)
def test_laws_with_closed_forms_are_exact(name, dtype):
    draw, mean, variance, normal = EXACT[name]
    found = law_of(draw, dtype)
    # Float32 holds the constants of the code, such as 0.1, to half its eps.
    rtol = 1e-13 if dtype == "float64" else 1.2e-7
    assert found.mean == pytest.approx(mean, rel=rtol, abs=1e-15)
    assert found.variance == pytest.approx(variance, rel=rtol, abs=0)
    assert found.normal is normal


@pytest.mark.parametrize("name", EXACT)
def test_samples_have_the_mean_and_the_variance(name):
    draw, mean, variance, _ = EXACT[name]
    sample = np.asarray(draw(jax.random.key(1), SHAPE, "float32"), np.float64)
    deviations = (sample - mean) ** 2
    assert abs(sample.mean() - mean) <= 4 * math.sqrt(variance / sample.size) + 1e-12
    assert abs(deviations.mean() - variance) <= 4 * stats.sem(deviations.ravel()) + 1e-12


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_unit_normal_and_lecun_normal_are_exact_in_every_dtype(dtype):
    assert law_of(init.normal(1.0), dtype) == (0, 1, True)
    found = laws(lambda key: init.lecun_normal()(key, (4, 3), dtype), KEY)
    assert found.mean == 0
    assert found.variance == pytest.approx(0.25, rel=1e-14)


INTEGRATED = {
    "laplace": (jax.random.laplace, 0, 2),
    "logistic": (jax.random.logistic, 0, math.pi**2 / 3),
    "gumbel": (jax.random.gumbel, np.euler_gamma, math.pi**2 / 6),
    "half normal": (
        *(lambda *args: abs(jax.random.normal(*args)), math.sqrt(2 / math.pi)),
        1 - 2 / math.pi,
    ),
    "lognormal": (
        *(lambda *args: jnp.exp(jax.random.normal(*args)), math.exp(0.5)),
        math.e * (math.e - 1),
    ),
}


@pytest.mark.parametrize("name", INTEGRATED)
def test_other_laws_are_integrated(name):
    draw, mean, variance = INTEGRATED[name]
    found = law_of(draw)
    assert found.mean == pytest.approx(mean, rel=1e-8, abs=1e-8)
    assert found.variance == pytest.approx(variance, rel=1e-7)
    assert not found.normal


def test_integrated_float32_laws_have_the_tails_of_their_sampler():
    found = law_of(jax.random.laplace, "float32")  # uniform numbers of 23 bits end at 2^-23
    assert found.mean == pytest.approx(0, abs=1e-5)
    assert found.variance == pytest.approx(2, rel=1e-5)


def test_normal_numbers_are_known_by_their_quantiles():
    def quantile(key, shape, dtype):
        uniform = jax.random.uniform(key, shape, dtype)
        return 1 - 3 * jax.scipy.special.ndtri((1 - 1e-9) * uniform + 5e-10)

    mean, variance, normal = law_of(quantile)
    assert normal
    assert (mean, variance) == pytest.approx((1, 9), rel=1e-6)


@pytest.mark.parametrize("p", [0.7, 0.1, 1e-3])
def test_thresholds_of_samplers_are_found_to_the_bit(p):
    def below(bits):  # 23 of 32 bits
        return (bits >> 9).astype("float32") * jnp.float32(2**-23) < jnp.float32(p)

    count = math.ceil(float(np.float32(p)) * 2**23)
    assert law_of_bits(below, 32).mean == count / 2**23

    def below_double(bits):  # 52 of 64 bits
        return (bits >> 12).astype("float64") * 2.0**-52 < p

    assert law_of_bits(below_double, 64).mean == pytest.approx(p, abs=2**-52)


def test_step_functions_of_several_values_are_exact():
    found = law_of_bits(lambda bits: jnp.floor(bits.astype("float64") / 2**32 * 5), 32)
    assert found.mean == pytest.approx(2, abs=2**-30)
    assert found.variance == pytest.approx(2, abs=2**-30)


def halves(key):
    numbers = jax.random.normal(key, (2, 3))
    return {"v": numbers[0], "w": numbers[1]}


def recycled(key):
    return {"v": jax.random.normal(key, (3,)), "w": jax.random.uniform(key, (4,))}


def pieces(key):
    first, second = jax.random.split(key)
    return {"w": jnp.stack([jax.random.normal(first, (3,)), 2 * jax.random.normal(second, (3,))])}


def of_one(draw):
    return lambda key: {"w": draw(key, (4, 4))}


REFUSED = {
    "orthogonal": (of_one(init.orthogonal()), r"w has entries that depend on each other \(qr, "),
    "convolution": (
        *(lambda key: {"w": init.delta_orthogonal()(key, (3, 3, 4, 4))},),
        "w .* depend on each other",
    ),
    "sphere": (of_one(sphere()), r"depend on each other \(reduce_sum, "),
    "symmetric": (
        of_one(lambda *a: (lambda w: w + w.T)(init.normal()(*a))),
        r"other \(add, line .* of .*test_laws",
    ),
    "integers": (of_one(lambda key, s: jax.random.randint(key, s, 0, 5)), "several random draws"),
    "gamma": (of_one(lambda key, s: jax.random.gamma(key, 2.0, s)), r"unknown law \(random_gam"),
    "cauchy": (of_one(jax.random.cauchy), "infinite variance"),
    "not finite": (of_one(lambda *a: jnp.log(init.normal()(*a))), "not finite"),
    "recycled key": (recycled, "w is drawn with the same key as parameter v"),
    "same bits": (halves, "w is drawn with the same key as parameter v"),
    "copies": (
        *(lambda key: {"w": jnp.broadcast_to(jax.random.normal(key, (1, 3)), (4, 3))},),
        "copies of one random number",
    ),
    "stacked copies": (
        *(lambda key: {"w": jnp.stack([jax.random.normal(key, (3,))] * 2)},),
        "pieces drawn with the same key",
    ),
    "one key, mapped": (
        *(lambda key: {"w": jax.vmap(jax.random.normal)(jnp.broadcast_to(key, (3,)))},),
        "copies of one key",
    ),
    "pieces": (pieces, "pieces with different laws"),
    "diagonal": (of_one(lambda *a: init.normal()(*a) * jnp.eye(4)), "entries with different laws"),
    "table": (of_one(lambda key, s: jnp.eye(4)), "w holds different constants"),
    "key": (lambda key: {"w": jax.random.key_data(key)}, "w is made of the key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_law_is_refused_in_words(name):
    function, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        laws(function, KEY)


def test_refusals_say_what_to_do():
    with pytest.raises(ValueError, match=r"Use an initializer that .* ntkflow.monte_carlo_kernel"):
        laws(nn.Dense(3, kernel_init=init.orthogonal()).init, KEY, jnp.ones((1, 4)))


def test_parameters_that_depend_on_data_are_refused():
    def scaled(key, x):
        return {"w": jax.random.normal(key, (3,)) * jnp.std(x)}

    with pytest.raises(ValueError, match="w depends on the values of the inputs"):
        laws(scaled, KEY, jnp.ones((2, 3)))
    assert laws(lambda key, x: jnp.zeros_like(x), KEY, jnp.ones((2, 3))) == (0, 0, True)


class Layers(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (5, 7):
            x = nn.relu(nn.Dense(width, bias_init=init.normal(0.5))(x))
        return nn.Dropout(0.5, deterministic=False)(x)


@pytest.mark.quick
def test_flax_network():
    keys = {"params": KEY, "dropout": KEY}
    found = laws(Layers().init, keys, jax.ShapeDtypeStruct((2, 4), float))["params"]
    assert found["Dense_0"]["kernel"] == (0, pytest.approx(1 / 4), False)
    assert found["Dense_1"]["kernel"] == (0, pytest.approx(1 / 5), False)
    assert found["Dense_1"]["bias"] == (0, pytest.approx(0.25, rel=1e-15), True)


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), kernel_init=init.he_normal(), param_dtype=float)(x)
        x = nn.BatchNorm(use_running_average=False)(nn.LayerNorm()(x))
        return nn.MultiHeadDotProductAttention(2)(jnp.reshape(x, (x.shape[0], -1, 6)))


def test_flax_convolutions_and_normalization():
    found = laws(Convolutions().init, KEY, jax.ShapeDtypeStruct((2, 5, 5, 3), float))
    params = found["params"]
    assert params["Conv_0"]["kernel"] == (0, pytest.approx(2 / 27, rel=1e-13), False)
    assert params["LayerNorm_0"] == {"bias": (0, 0, True), "scale": (1, 0, True)}
    assert found["batch_stats"]["BatchNorm_0"] == {"mean": (0, 0, True), "var": (1, 0, True)}
    attention = params["MultiHeadDotProductAttention_0"]
    assert attention["query"]["kernel"].variance == pytest.approx(1 / 6, rel=1e-6)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(4)(x), None


class Scanned(nn.Module):
    split: bool = True

    @nn.compact
    def __call__(self, x):
        split, axes = {"params": self.split}, {"params": 0}
        x, _ = nn.scan(nn.remat(Block), axes, split_rngs=split, length=3)(name="scan")(x, None)
        mapped = nn.vmap(nn.Dense, variable_axes=axes, split_rngs=split, in_axes=None, axis_size=2)
        return mapped(5, name="vmap")(x)


@pytest.mark.parametrize("key", [KEY, jax.ShapeDtypeStruct((2,), "uint32")], ids=["typed", "raw"])
def test_stacked_layers_have_the_law_of_each(key):
    found = laws(Scanned().init, key, jax.ShapeDtypeStruct((2, 4), float))["params"]
    for kernel in (found["scan"]["Dense_0"]["kernel"], found["vmap"]["kernel"]):
        assert kernel == (0, pytest.approx(1 / 4), False)
    assert found["scan"]["Dense_0"]["bias"] == (0, 0, True)


def test_stacked_layers_of_equal_values_are_refused():
    with pytest.raises(ValueError, match=r"scan/Dense_0/kernel .* same key"):
        laws(Scanned(split=False).init, KEY, jnp.ones((2, 4)))


def test_pure_functions_without_flax_and_inside_jit():
    def network(key):
        first, second = jax.random.split(key)
        w = jax.random.normal(first, (3, 5)).T
        return [(w, jnp.zeros(5)), (jnp.exp(jax.random.normal(second, (5, 1))), ())]

    def found(x):
        (w, b), (v, _) = laws(network, KEY)
        assert (w, b) == ((0, 1, True), (0, 0, True))
        return x * v.mean

    assert jax.jit(found)(1.0) == pytest.approx(math.exp(0.5))


def test_initial_values_that_are_traced_are_refused():
    def found(scale):
        return laws(lambda key: scale * jax.random.normal(key, (3,)), KEY).mean

    with pytest.raises(ValueError, match=r"The array depends on values that are traced \(.*line"):
        jax.jit(found)(1.0)


@pytest.mark.parametrize("rate", [0.3, 0.25])
def test_masks_of_dropout(rate, dtype):
    module = nn.Dropout(rate, deterministic=False)

    def masked(key):
        return module.apply({}, jnp.ones((2, 3), dtype), rngs={"dropout": key})

    assert laws(masked, KEY) == pytest.approx((1.0, rate / (1 - rate), False), rel=1e-6)
