import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import compiled
from jax.scipy.special import erf
from jax.scipy.stats import norm

from ntkflow.kernels.activations import closed_forms, recognise
from ntkflow.kernels.dual import dual_activation, dual_pair, mean, pair_expectation
from ntkflow.kernels.polynomials import polynomial_coefficients
from ntkflow.kernels.quadrature import derivative


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


CLOSED = {
    "rectifier": {
        "relu": jax.nn.relu,
        "half": lambda x: 0.5 * (x + jnp.abs(x)),
        "scaled": lambda x: jnp.sqrt(2.0) * jax.nn.relu(-3 * x),
        "leaky": lambda x: jax.nn.leaky_relu(x, 0.3),
        "abs": jnp.abs,
        "identity": lambda x: x,
    },
    "step": {
        "where": lambda x: jnp.where(x > 0, 1, 0),
        "heaviside": lambda x: jnp.heaviside(x, 0.5),
        "comparison": lambda x: x >= 0,
        "sign": jnp.sign,
    },
    "erf": {
        "erf": erf,
        "erf_scaled": lambda x: 3 * erf(x / jnp.sqrt(2.0)),
        "erf_wide": lambda x: erf(0.01 * x),
        "normal_cdf": norm.cdf,
    },
    "sinusoid": {
        "sin": jnp.sin,
        "cos": jnp.cos,
        "random_feature": lambda x: jnp.sqrt(2.0) * jnp.cos(1.7 * x + 0.3),
        "sum": lambda x: jnp.sin(2 * x) - jnp.cos(2 * x),
    },
    "exponential": {"exp": jnp.exp, "exp_scaled": lambda x: 2 * jnp.exp(-0.5 * x)},
    "gaussian": {"gaussian": lambda x: 2 * jnp.exp(-(x**2) / 3)},
    "gelu": {
        "gelu": gelu,
        "gelu_scaled": lambda x: 2 * gelu(-1.3 * x),
    },
    "polynomial": {
        "hermite": lambda x: (x**3 - 3 * x) / jnp.sqrt(6.0),
        "square": jnp.square,
        "nested": jax.jit(lambda x: (2 * x - 1) ** 2.0 + 0.5),
        "constant": lambda x: 0 * x + 2,
    },
}
MEMBERS = {name: (phi, family) for family, row in CLOSED.items() for name, phi in row.items()}
OTHERS = {
    "gelu_tanh": jax.nn.gelu,
    "softplus": jax.nn.softplus,
    "softplus_1e3": lambda x: jax.nn.softplus(1e3 * x) / 1e3,
    "softplus_1e9": lambda x: jax.nn.softplus(1e9 * x) / 1e9,
    "silu_1e8": lambda x: x * jax.nn.sigmoid(1e8 * x),
    "relu6": jax.nn.relu6,
    "clipped_far": lambda x: jnp.clip(x, 0, 1e6),
    "shifted_relu": lambda x: jax.nn.relu(x - 1),
    "tanh": jnp.tanh,
    "sigmoid_1e6": lambda x: jax.nn.sigmoid(1e6 * x),
    "exp_clipped": lambda x: jnp.exp(jnp.minimum(x, 12)),
    "snake": lambda x: x + jnp.sin(x) ** 2,
}


slope_of = functools.cache(derivative)
quick = functools.cache(compiled)  # one program for all tests that ask for the same function
PIECE = 2**14


def at(h, x):
    """h(x) in pieces of one size, so that each function compiles once."""
    pieces = np.zeros((-(-x.size // PIECE), PIECE))
    pieces.flat[: x.size] = x.flat
    values = np.stack([quick(h)(piece) for piece in pieces])
    return values.ravel()[: x.size].reshape(x.shape).astype(float)


def reference(f, g, k11, k12, k22, breaks=(0.0,)):
    """E[f(u) g(v)] by nested Gauss–Legendre, panels cut where u or v is at a break, and around
    the latter, where E[g(v) | u] changes over the spread of v."""
    nodes, weights = np.polynomial.legendre.leggauss(56)

    def panels(cuts):
        ends = np.broadcast_to([-10.0, 10.0], (*cuts.shape[:-1], 2))
        edges = np.sort(np.concatenate([ends, np.clip(cuts, -10, 10)], axis=-1))
        halves = np.diff(edges)[..., None] / 2
        z = halves * nodes + (edges[..., :-1, None] + halves)
        density = halves * weights * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        return z.reshape(*z.shape[:-2], -1), density.reshape(*z.shape[:-2], -1)

    a, b, breaks = np.sqrt(k11), np.sqrt(k22), np.asarray(breaks)
    rho = k12 / np.sqrt(k11 * k22)
    layers = breaks[:, None] / b + np.sqrt(1 - rho**2) * np.array([-9, -4, -2, 0, 2, 4, 9])
    z, density = panels(np.append(breaks / a, layers / (rho or 1)))
    if abs(rho) == 1:
        return density @ (at(f, a * z) * at(g, rho * b * z))
    spread = np.sqrt(1 - rho**2)
    inner, inner_density = panels((breaks / b - rho * z[:, None]) / spread)
    v = b * (rho * z[:, None] + spread * inner)
    return density @ (at(f, a * z) * np.sum(inner_density * at(g, v), axis=1))


COVARIANCES = [
    (1.0, 0.4, 0.7),
    (0.8, -0.9, 1.3),
    (1.2, 0.0, 0.3),
    (0.5, 0.5, 0.5),
    (2.0, -2.0, 2.0),
]


@pytest.mark.parametrize("name", OTHERS)
def test_relatives_are_not_mistaken(name):
    assert recognise(OTHERS[name]) is None


def test_recognition_with_float32_alone():
    with jax.enable_x64(False):
        for name in ("half", "erf_scaled", "random_feature", "gelu", "hermite"):
            assert recognise(MEMBERS[name][0]).name == MEMBERS[name][1], name
        for name in ("gelu_tanh", "softplus_1e3", "silu_1e8", "relu6"):
            assert recognise(OTHERS[name]) is None, name


@pytest.mark.quick
@pytest.mark.parametrize("name", MEMBERS)
def test_is_recognised_by_what_it_computes_and_equals_the_integral(name):
    phi, name = MEMBERS[name]
    family = recognise(phi)
    assert family.name == name
    pair = compiled(closed_forms[name](*family.parameters))(*np.array(COVARIANCES).T)
    functions = (phi, derivative(lambda x: jnp.asarray(phi(x), x.dtype)))
    for found, f in zip(pair, functions, strict=True):
        expected = [reference(f, f, *point) for point in COVARIANCES]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def where_tanh(x):
    return jnp.where(x > 1, x, jnp.tanh(x))


def step_at_1(x):
    return jnp.where(x > 1, 1.0, 0.0)


def shifted_relu(x):
    return jax.nn.relu(x - 1)


EXACT = (1e-13,) * 4
# Largest error of k_φ and k_φ' over ρ at variances 0.25, 1, 4 and 16, float64; k_φ' of
# shifted_relu is k_φ of a step.
ACCURACY = {
    "tanh": (jnp.tanh, (0,), (1e-13, 1e-13, 1e-10, 2e-6), (1e-13, 1e-13, 1e-8, 1e-4)),
    "silu": (jax.nn.silu, (0,), (1e-13, 1e-13, 1e-13, 1e-10), (1e-13, 1e-13, 1e-13, 1e-9)),
    "gelu_tanh": (jax.nn.gelu, (0,), (1e-13, 1e-13, 1e-13, 1e-8), (1e-13, 1e-13, 1e-13, 1e-7)),
    "selu": (jax.nn.selu, (0,), EXACT, EXACT),
    "relu_squared": (lambda x: jax.nn.relu(x) ** 2, (0,), (*EXACT[1:], 1e-12), EXACT),
    "relu6": (jax.nn.relu6, (0, 6), EXACT, EXACT),
    "hard_silu": (jax.nn.hard_silu, (-3, 3), EXACT, EXACT),
    "shifted_relu": (shifted_relu, (1,), EXACT, EXACT),
    "where_tanh": (where_tanh, (1,), (1e-10, 1e-10, 1e-10, 1e-8), (1e-10, 1e-10, 1e-10, 1e-6)),
}


@functools.cache
def dual(phi):
    """Built once for all tests, which pass five points at once: `quick` compiles each rule once."""
    return dual_activation(phi)


@pytest.mark.parametrize("name", ACCURACY)
def test_accuracy_of_quadrature(name):
    phi, breaks, *bounds = ACCURACY[name]
    rho = np.array([-1.0, -1 + 1e-6, -0.9, 0.3, 1 - 1e-3, 1 - 1e-12, 1.0])
    variances = np.array([0.25, 1.0, 4.0, 16.0])
    point = np.broadcast_arrays(variances[:, None], variances[:, None] * rho, variances[:, None])
    found = dual_pair(phi)(*map(jnp.asarray, point))
    for values, f, bound in zip(found, (phi, slope_of(phi)), bounds, strict=True):
        expected = [reference(f, f, *p, breaks) for p in zip(*map(np.ravel, point), strict=True)]
        error = np.max(np.abs(values - np.reshape(expected, values.shape)), axis=1)
        assert (error < bound).all(), error


def test_series_loses_digits_at_large_variance():
    found = quick(dual(jnp.tanh)[0])(*np.full((3, 5), 16.0))[0]
    error = abs(found - reference(jnp.tanh, jnp.tanh, 16.0, 16.0, 16.0))
    assert 1e-7 < error < 2e-6


@pytest.mark.quick
def test_second_moments_known_from_elsewhere():
    known = {jax.nn.softplus: 0.9212459089, jax.nn.sigmoid: 0.2933790359}
    known |= {jnp.tanh: 0.3942944904, jax.nn.silu: 0.3557755198}
    for phi, moment in known.items():
        np.testing.assert_allclose(quick(dual(phi)[0])(*np.ones((3, 5))), moment, atol=1e-10)


GRADED = {
    "relu": jax.nn.relu,
    "gelu": gelu,
    "erf": erf,
    "sin": jnp.sin,
    "cubic": MEMBERS["hermite"][0],
}
GRADED |= {"tanh": jnp.tanh, "silu": jax.nn.silu, "selu": jax.nn.selu}
GRADED |= {"hard_tanh": jax.nn.hard_tanh, "hard_silu": jax.nn.hard_silu, "where_tanh": where_tanh}
BREAKS = {"hard_silu": (-3, 3)}


@functools.cache
def _values_and_gradients(k):
    return compiled(lambda *p: (k(*p), jax.grad(lambda *p: k(*p).sum(), (0, 1, 2))(*p)))


def values_and_gradients(k, *points):
    """Both at all points; the gradients of shape (points, 3)."""
    values, found = _values_and_gradients(k)(*points)
    return values, np.stack(found, axis=-1)


def gradients(k, *points):
    return values_and_gradients(k, *points)[1]


ONE_OF_EACH_RULE = ["relu", "gelu", "erf", "sin", "cubic", "tanh", "selu", "hard_silu"]


@pytest.mark.parametrize("name", ONE_OF_EACH_RULE)
def test_gradient_is_gaussian_again(name):
    """∂E/∂k₁₂ = E[φ'φ'], and by parts ∂E/∂k₁₁ = (E[u φ'(u) φ(v)] − k₁₂ E[φ'φ'])/(2 k₁₁), which
    needs no second derivative; on the diagonal and at ρ = −1 too."""
    phi, breaks = GRADED[name], BREAKS.get(name, (0,))
    k, slope = dual(phi)[0], slope_of(phi)
    times_slope = lambda u: u * slope(u)  # noqa: E731
    found = gradients(k, *np.array(COVARIANCES).T)
    for gradient, (k11, k12, k22) in zip(found, COVARIANCES, strict=True):
        point = k11, k12, k22
        by_12 = reference(slope, slope, *point, breaks)
        by_11 = reference(times_slope, phi, *point, breaks) - k12 * by_12
        by_22 = reference(phi, times_slope, *point, breaks) - k12 * by_12
        expected = by_11 / (2 * k11), by_12, by_22 / (2 * k22)
        np.testing.assert_allclose(gradient, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("name", "which"), [("step", 0), ("where_tanh", 0), ("hard_tanh", 1)])
def test_gradient_sees_the_jumps(name, which):
    """Of φ in k_φ, of φ' in k_φ': against central differences, finite where they diverge."""
    k = dual(GRADED.get(name, step_at_1))[which]
    points = np.array([*COVARIANCES[:3], (1, 1, 1), (0, 0, 1)]).T
    found, h = gradients(k, *points), 1e-4
    assert np.isfinite(found).all()
    for i in range(3):
        step = h * np.eye(3)[i][:, None]
        expected = (quick(k)(*(points + step)) - quick(k)(*(points - step))) / (2 * h)
        np.testing.assert_allclose(found[:3, i], expected[:3], atol=1e-7)


@pytest.mark.parametrize("name", ["gelu", "tanh", "elu"])
def test_gradient_of_the_derivative_kernel(name):
    phi = GRADED.get(name, jax.nn.elu)
    k, first = dual(phi)[1], slope_of(phi)
    second = slope_of(first)
    times_second = lambda u: u * second(u)  # noqa: E731
    found = gradients(k, *np.array(COVARIANCES).T)
    for gradient, point in zip(found, COVARIANCES, strict=True):
        by_12 = reference(second, second, *point)
        by_11 = reference(times_second, first, *point) - point[1] * by_12
        expected = by_11 / (2 * point[0]), by_12
        np.testing.assert_allclose(gradient[:2], expected, rtol=1e-10, atol=1e-12)


SINGLE = [(name, "float32") for name in ("tanh", "gelu", "hard_silu")]
DOUBLE = [(name, "float64") for name in ("tanh", "gelu", "hard_silu", "sin", "cubic")]


@pytest.mark.parametrize(("name", "dtype"), SINGLE + DOUBLE)
def test_gradient_at_zero_variance(name, dtype):
    """u = 0: E = φ(0) E[φ(v)], ∂E/∂k₁₂ = φ'(0) E[φ'(v)], ∂E/∂k₁₁ = ½ φ''(0) E[φ(v)]."""
    phi = GRADED[name]
    k = dual(phi)[0]
    points = np.tile(np.array([[0], [0], [0.8]], dtype), 5)
    slope, one, zero = slope_of(phi), jnp.ones_like, np.zeros(1)
    averages = [reference(one, f, 1.0, 0.0, 0.8, BREAKS.get(name, (0,))) for f in (phi, slope)]
    at_zero = [at(f, zero)[0] for f in (phi, slope, slope_of(slope))]
    expected = at_zero[2] * averages[0] / 2, at_zero[1] * averages[1]
    tolerance = 50 * float(np.finfo(dtype).eps)
    values, found = values_and_gradients(k, *points)
    np.testing.assert_allclose(found[0, :2], expected, atol=tolerance)
    np.testing.assert_allclose(values[0], at_zero[0] * averages[0], atol=tolerance)


FINITE = ["relu", "gelu", "erf", "tanh", "selu"]


@pytest.mark.parametrize("name", FINITE)
def test_derivatives_are_finite(name, dtype):
    points = [(0, 0, 0), (0, 0, 1), (1, 1, 1), (1, -1, 1), (1, 0, 1)]
    points = np.array(points, dtype).T
    for k in dual(GRADED[name]):
        values, found = values_and_gradients(k, *points)
        assert values.dtype == dtype
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", GRADED)
def test_float32_follows_float64(name):
    k11, k12, k22 = np.array(COVARIANCES).T
    for k in dual(GRADED[name]):
        # Where another test has a program that gives the values, no second one is compiled.
        values = _values_and_gradients(k) if name in FINITE else quick(k)
        single, double = (values(*np.array([k11, k12, k22], t)) for t in ("float32", "float64"))
        if name in FINITE:
            single, double = single[0], double[0]
        # E[φ'φ'] of a kink sees the angle, which float32 resolves to √eps.
        np.testing.assert_allclose(single, double, rtol=1e-5, atol=5e-6)


def test_small_sinusoids_keep_their_digits():
    """E[sin u sin v] → k₁₂ as variances vanish; a difference of exponentials would lose it."""
    k = quick(dual(jnp.sin)[0])
    small, large = np.full(5, 1e-6, "float32"), np.full(5, 1e4, "float32")
    np.testing.assert_allclose(k(small, small / 2, small), 5e-7, rtol=1e-5)
    assert np.isfinite(k(large, large * np.array([-1, 1, -1, 1, 1], "float32"), large)).all()


def test_arguments_broadcast_and_transform():
    k11, k22 = jnp.array([0.5, 1.0]), jnp.array([0.3, 0.7, 2.0])
    k12 = 0.1 * jnp.arange(6.0).reshape(2, 3)
    for phi in (jnp.tanh, jax.nn.elu, jax.nn.relu6):
        k = dual(phi)[0]
        entries = jax.vmap(jax.vmap(k, (None, 0, 0)), (0, 0, None))
        both = compiled(lambda a, b, c: (k(a[:, None], b, c), entries(a, b, c)))
        table, entries = both(k11, k12, k22)
        np.testing.assert_allclose(table, entries, rtol=1e-13, atol=1e-15)


PAIRS = {
    "smooth": (jnp.tanh, jax.nn.silu, (0,)),
    "kink_at_0": (jax.nn.relu, jnp.tanh, (0,)),
    "polynomials": (jax.nn.hard_tanh, shifted_relu, (-1, 1)),
    "breaks": (jax.nn.hard_tanh, where_tanh, (-1, 1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_expectation_of_two_functions(name):
    f, g, breaks = PAIRS[name]
    found = compiled(pair_expectation(f, g))(*np.array(COVARIANCES).T)
    expected = [reference(f, g, *point, breaks) for point in COVARIANCES]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11)


def test_expectation_with_the_identity_is_steins():
    """E[u g(v)] = c E[g'(v)]."""
    k11, k12, k22 = COVARIANCES[0]
    k, slopes = pair_expectation(lambda x: x, jnp.tanh), mean(derivative(jnp.tanh))
    np.testing.assert_allclose(k(k11, k12, k22), k12 * slopes(k22), rtol=1e-13)


MEANS = {
    "relu": (jax.nn.relu, lambda q: jnp.sqrt(q / (2 * np.pi))),
    "step_at_1": (step_at_1, lambda q: norm.sf(1 / jnp.sqrt(q))),
    "cos": (jnp.cos, lambda q: jnp.exp(-q / 2)),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", MEANS)
def test_mean_of_one_function(name):
    f, expected = MEANS[name]
    q = np.array([0.25, 1.0, 4.0, 16.0])

    @compiled
    def both(q):
        (value, slope), one = jax.vjp(mean(f), q), jnp.ones_like(q)
        return value, slope(one)[0], *jax.jvp(expected, (q,), (one,))

    value, slopes, expected_value, expected_slopes = both(q)
    np.testing.assert_allclose(value, expected_value, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(slopes, expected_slopes, rtol=1e-12, atol=1e-14)


def test_mean_at_zero_variance():
    """½ φ''(0) is the derivative where there is one, and a finite number stands where not."""
    found = jax.jit(jax.value_and_grad(mean(jax.nn.hard_silu)))(jnp.float32(0))
    np.testing.assert_allclose(found, (0, 1 / 6), atol=1e-6)
    assert np.isfinite(jax.jit(jax.grad(mean(jax.nn.relu)))(0.0))


def test_is_recognised_under_a_trace_and_integrated_where_it_closes_over_one():
    def inside(slope):
        assert recognise(jax.nn.relu) is not None
        assert recognise(lambda x: slope * x) is None
        return dual_activation(lambda x: jnp.where(x > 0, x, slope * x))[0](1.0, 0.3, 0.8)

    expected = dual_activation(lambda x: jax.nn.leaky_relu(x, 0.2))[0](1.0, 0.3, 0.8)
    np.testing.assert_allclose(jax.jit(inside)(0.2), expected, rtol=1e-12)
    batch = jax.vmap(inside)(jnp.array([0.2, 0.3]))
    np.testing.assert_allclose(batch[0], expected, rtol=1e-12)


def test_polynomials_are_read_from_their_code():
    read = polynomial_coefficients
    scale = jnp.array(3.0)
    assert read(lambda x: -scale * x**2 + x / 4 - 1).tolist() == [-1, 0.25, -3]
    assert read(lambda x: x - x).tolist() == [0]
    for other in (jnp.sin, lambda x: 1 / x, lambda x: x**0.5, lambda x: x**65, lambda x: x**x):
        assert read(other) is None
    assert read(lambda x: x.astype(int).astype(x.dtype)) is None
    traced = []
    jax.jit(lambda a: traced.append(read(lambda x: a * x)))(1.0)
    assert traced == [None]


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (3, r"phi is 3; expected an elementwise function"),
        (jnp.sum, r"expected an elementwise function, which keeps the shape"),
        (jnp.sqrt, r"phi or its derivative is NaN at -12\.\d+; expected a function on the whole"),
    ],
)
def test_bad_activation(phi, message):
    with pytest.raises(ValueError, match=message):
        dual_activation(phi)
